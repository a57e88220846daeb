"""A part of a report as words: what sections are made of, whatever they are rendered as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sampling.report.summary import Estimate, Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A heading with a table, a figure or both.

    Attributes:
        note: a paragraph above them.
        figure: file name of the figure; HTML embeds what it is given under this name.
        bars: an estimate in [0, 1] for each row, which HTML draws beside the table; None draws none.
        strong: the rows to stand out.
    """

    title: str
    note: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figure: str = ""
    bars: Sequence[Estimate | None] = ()
    strong: frozenset[int] = frozenset()


def percent(value: float | None) -> str:
    """``12.3 %``; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f} %"


def span(point: Interval) -> str:
    """An interval in per cent."""
    return f"{100 * point.low:.1f} – {100 * point.high:.1f}"


def points(value: float) -> str:
    """A difference in percentage points."""
    return f"{100 * value:+.1f}".replace("-", "−")


def decimal(value: float | None) -> str:
    """Three digits; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def count(value: int) -> str:
    """A whole number."""
    return f"{value:,}"
