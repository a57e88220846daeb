"""Make the canvas of a report's figures, and write figures as PNG, SVG and PDF."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import wraps
from math import inf
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Width = Literal["wide", "narrow"]

INCHES: dict[Width, float] = {"wide": 8.6, "narrow": 3.65}
"""Widths of figures: of a page or a paper's text (8.6 in, 826 px), and of a phone or a paper's column (350 px)."""


@dataclass(frozen=True, slots=True)
class Theme:
    """Hold the colours of one figure.

    ``series``: one colour per verifier (Okabe and Ito 2008, distinguishable for the colour-blind).
    """

    page: str
    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]


LIGHT = Theme(
    "#ffffff", "#1c2024", "#6a737d", "#e4e7eb",
    ("#0072b2", "#d55e00", "#009e73", "#b8528f", "#8a6d00", "#4a9fd8", "#7a5195", "#a34a28"),
)  # fmt: skip
DARK = Theme(
    "#15191e", "#e8eaed", "#98a1ab", "#2c333b",
    ("#56b4e9", "#f08a4b", "#2fc59a", "#e08fc0", "#e8c547", "#9ad1f5", "#b79bd8", "#e39a7b"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Picture:
    """Hold one figure in the formats of files, and as SVG for pages.

    Attributes:
        files: ending (``png``, ``svg``, ``pdf``) → contents; wide, on white.
        pages: (width, whether the page is dark) → SVG.
    """

    files: dict[str, bytes]
    pages: dict[tuple[Width, bool], bytes]


def texts_as_they_are(plot: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Draw names as they are: between two dollar signs matplotlib would read mathematics, and may fail to."""

    @wraps(plot)
    def draw(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        from matplotlib import rc_context

        # A salt in place of random identifiers, so that the same figure is the same file; letters stay text in PDF.
        fixed: dict[Any, Any] = {"svg.hashsalt": "stepverify", "pdf.fonttype": 42}
        with rc_context(fixed | {"text.parse_math": False, "text.usetex": False}):
            return plot(*args, **kwargs)

    return draw


@texts_as_they_are
def picture(draw: Callable[[Width], Figure]) -> Picture:
    """Draw a figure for both widths, and render it in every format."""
    wide, narrow = _laid_out(draw("wide")), _laid_out(draw("narrow"))
    pages: dict[tuple[Width, bool], bytes] = {
        ("wide", False): render(wide, "svg"),
        ("narrow", False): render(narrow, "svg"),
    }
    files = {"png": render(wide, "png"), "svg": pages["wide", False], "pdf": render(wide, "pdf")}
    return Picture(files, pages | {(width, True): darkened(svg) for (width, _), svg in pages.items()})


def _laid_out(figure: Figure) -> Figure:
    """Place the panels once: with a layout engine, every format would draw the figure twice."""
    figure.draw_without_rendering()
    figure.set_layout_engine(None)
    return figure


def render(figure: Figure, format: Literal["png", "svg", "pdf"]) -> bytes:
    """Render a figure; the same figure gives the same bytes."""
    metadata = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[format]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, dpi=160, facecolor=figure.get_facecolor(), metadata=metadata)
    return buffer.getvalue()


def darkened(svg: bytes) -> bytes:
    """Replace the colours of the light theme in an SVG by those of the dark one."""
    light, dark = ([*map(str.encode, (*colours[:-1], *colours[-1]))] for colours in (astuple(LIGHT), astuple(DARK)))
    colours = dict(zip(light, dark, strict=True))
    return re.sub(rb"#[0-9a-f]{6}\b", lambda found: colours.get(found[0], found[0]), svg)


def canvas(
    width: Width, height: float, rows: int = 1, columns: int = 1, *, shared: bool = False
) -> tuple[Figure, Axes]:
    """Make a figure with panels, in the colours of the light theme.

    Args:
        width: width of the figure.
        height: height in inches.
        rows: rows of panels.
        columns: panels in a row.
        shared: all panels share their axes; those inside have no tick labels.

    Returns:
        The figure and its first panel.
    """
    # Not pyplot: it keeps figures in memory, and may need a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES[width], height), layout="constrained", facecolor=LIGHT.page)
    size = text_size(width)
    for axes in figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).flat:
        axes.set_facecolor(LIGHT.page)
        axes.grid(color=LIGHT.grid, linewidth=0.8)
        axes.set_axisbelow(True)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(LIGHT.muted)
        axes.tick_params(colors=LIGHT.muted, length=0, labelsize=size)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color=LIGHT.ink, fontsize=size)
    return figure, figure.axes[0]


def text_size(width: Width) -> float:
    """Return the size of a figure's text, in points."""
    return 10 if width == "wide" else 8.5


def shortened(text: str, most: int = 40) -> str:
    """Return a name of at most ``most`` characters; of a longer one, both ends."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[most // 2 + 1 - most :]}"


def spread_out(heights: Sequence[float], gap: float, low: float = -inf, high: float = inf) -> list[float]:
    """Move ascending heights apart to at least ``gap``.

    Each cluster stays centred on its mean, or at the border that it would cross. The range from ``low`` to ``high`` has
    room for all.
    """
    clusters: list[list[float]] = []

    def bottom(cluster: Sequence[float]) -> float:
        extent = gap * (len(cluster) - 1)
        return max(min(sum(cluster) / len(cluster) - extent / 2, high - extent), low)

    for height in heights:
        clusters.append([height])
        while len(clusters) > 1 and bottom(clusters[-1]) < bottom(clusters[-2]) + gap * len(clusters[-2]):
            last = clusters.pop()
            clusters[-1] += last
    return [bottom(cluster) + i * gap for cluster in clusters for i in range(len(cluster))]
