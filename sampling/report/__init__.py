"""Reports: statistics (:mod:`~sampling.report.summary`) → sections → text, Markdown, HTML pages and figures."""
