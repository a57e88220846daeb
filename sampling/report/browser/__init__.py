"""Write the solution browser: one page in which people look at solutions, and rate their steps."""

from sampling.report.browser.entries import Describer
from sampling.report.browser.report import Sources, browse_report
from sampling.report.browser.sheets import browse_sheets
from sampling.report.browser.trees import EXPANSIONS

__all__ = ["EXPANSIONS", "Describer", "Sources", "browse_report", "browse_sheets"]
