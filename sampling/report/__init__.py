"""Report results: statistics, then sections, then text, Markdown, HTML and figures.

The statistics are those of :mod:`~sampling.report.summary`.
"""
