"""Define the sections of a report, and format their figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sampling.report.summary import Estimate, Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Describe a heading with a table, a figure or both.

    Attributes:
        title: the heading.
        note: a paragraph above table and figure.
        header: column names of the table.
        rows: cells of the table.
        figure: name of the figure; HTML embeds the one given under this name.
        bars: an estimate in [0, 1] for each row, which HTML draws next to the table; None for no bar.
        strong: indices of the rows to emphasise.
    """

    title: str
    note: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figure: str = ""
    bars: Sequence[Estimate | None] = ()
    strong: frozenset[int] = frozenset()


def percent(value: float | None) -> str:
    """Format a share as ``12.3 %``; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f} %"


def span(point: Interval) -> str:
    """Format an interval in per cent."""
    return f"{100 * point.low:.1f} – {100 * point.high:.1f}"


def points(value: float) -> str:
    """Format a difference in percentage points."""
    return f"{100 * value:+.1f}".replace("-", "−")


def decimal(value: float | None) -> str:
    """Format a number with three decimals; a dash for None."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def count(value: int) -> str:
    """Format a whole number."""
    return f"{value:,}"
