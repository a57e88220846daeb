"""Define the sections of a report, and format their figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from sampling.report.summary import Difference, Estimate, Interval

TABLE_FORMATS = {"CSV": "csv", "LaTeX": "tex"}


def figure_files(figure: str) -> dict[str, str]:
    """Return the files of a figure: format → name."""
    return {ending.upper(): f"{figure}.{ending}" for ending in ("png", "svg", "pdf")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Describe a heading with a table, a figure or both.

    Attributes:
        name: of the files that hold the table; empty for a table that no file holds.
        title: the heading.
        note: a paragraph above table and figure.
        header: column names of the table.
        rows: cells of the table.
        figure: name of the figure; HTML embeds the one given under this name.
        dots: an estimate in [0, 1] for each row, which HTML draws next to the table, on an axis zoomed to all of them;
            None for no dot.
        dots_figure: name of a figure of the dots, for pages that cannot draw them next to a table.
        strong: indices of the rows to emphasise.
    """

    title: str
    note: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figure: str = ""
    dots: Sequence[Estimate | None] = ()
    dots_figure: str = ""
    strong: frozenset[int] = frozenset()
    name: str = ""

    @property
    def table_files(self) -> dict[str, str]:
        """Return the files of the table: format → path."""
        return {kind: f"tables/{self.name}.{end}" for kind, end in TABLE_FORMATS.items()} if self.name else {}

    @property
    def axis(self) -> list[float]:
        """Return the ticks of the dots' axis; the first and the last are its ends."""
        return zoomed([dot for dot in self.dots if dot])


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Format 95 % intervals, or standard errors in their place.

    Attributes:
        standard_errors: print ``± 1.2``, as lm-evaluation-harness does.
    """

    standard_errors: bool = False

    @property
    def header(self) -> str:
        """Return the name of the column."""
        return "stderr" if self.standard_errors else "interval"

    @property
    def words(self) -> str:
        """Return what the column holds, for a note."""
        return "standard errors (±)" if self.standard_errors else "intervals (95\u00a0%)"

    def share(self, point: Interval) -> str:
        """Format the interval of a share in per cent."""
        return f"± {100 * point.standard_error:.1f}" if self.standard_errors else span(point)

    def difference(self, point: Interval) -> str:
        """Format the interval of a difference in percentage points."""
        if self.standard_errors:
            return f"± {100 * point.standard_error:.1f}"
        return f"{points(point.low)} to {points(point.high)}"

    def area(self, point: Interval) -> str:
        """Format the interval of an AUROC."""
        return f"± {point.standard_error:.3f}" if self.standard_errors else f"{point.low:.3f} – {point.high:.3f}"

    def area_difference(self, point: Difference) -> str:
        """Format a difference of two AUROCs with its interval."""
        value = f"{point.difference:+.3f}"
        if self.standard_errors:
            return f"{value} ± {point.standard_error:.3f}"
        return f"{value} ({point.low:+.3f} to {point.high:+.3f})"


INTERVALS = Uncertainty()


def clear(difference: Difference) -> bool:
    """Tell whether an interval is all above or all below zero."""
    return difference.low > 0 or difference.high < 0


def zoomed(shown: Sequence[Estimate]) -> list[float]:
    """Return equidistant ticks in [0, 1] around all intervals: two to six round numbers.

    They are multiples of a step of 0.1, 0.2, 0.5, 1, 2, 5, 10, 20 or 50 per cent, the least with which six suffice.
    """
    if not shown:
        return []
    low, high = (1000 * f(getattr(one, key) for one in shown) for f, key in ((min, "low"), (max, "high")))
    for step in (1, 2, 5, 10, 20, 50, 100, 200, 500):  # per mille: whole numbers do not accumulate rounding errors
        first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
        if last - first <= 5:
            break
    if first == last:
        first, last = max(first - 1, 0), min(last + 1, 1000 // step)
    return [tick * step / 1000 for tick in range(first, last + 1)]


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
