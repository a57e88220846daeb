"""Plot a report's figures as PNG, for light and dark pages."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from sampling.report.accuracy import kind_label, rule_label, split_rule
from sampling.report.summary import Accuracy
from stepverify.statistics import Bin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Arguments = ParamSpec("Arguments")


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


LIGHT = Theme("#ffffff", "#1c2024", "#6a737d", "#e4e7eb", ("#0072b2", "#d55e00", "#009e73", "#b8528f", "#8a6d00"))
DARK = Theme("#15191e", "#e8eaed", "#98a1ab", "#2c333b", ("#56b4e9", "#f08a4b", "#2fc59a", "#e08fc0", "#e8c547"))


_MOST_LINES = 9  # per panel


def texts_as_they_are(plot: Callable[Arguments, bytes]) -> Callable[Arguments, bytes]:
    """Draw names as they are: between two dollar signs matplotlib would read mathematics, and may fail to."""

    @wraps(plot)
    def draw(*args: Arguments.args, **kwargs: Arguments.kwargs) -> bytes:
        from matplotlib import rc_context

        with rc_context({"text.parse_math": False, "text.usetex": False}):
            return plot(*args, **kwargs)

    return draw


@texts_as_they_are
def accuracy_figure(found: Accuracy, theme: Theme = LIGHT) -> bytes:
    """Plot accuracy against N with 95 % bands, one line per rule.

    The N axis is binary logarithmic, and lines are labelled at their ends. If there would be too many lines, each
    verifier gets its own panel, with the same colours for the same rules.

    Returns:
        PNG bytes.
    """
    rules = list(found.curves)
    verifiers = list(dict.fromkeys(v for rule in rules if (v := split_rule(rule)[0])))
    if len(rules) <= _MOST_LINES or not verifiers:
        figure, axes = canvas(theme, (9.0, 5.2))
        ends = _draw_curves(axes, found, rules, _styles(rules, theme), theme)
        axes.set_ylabel("problems solved (%)")
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, 0.0), min(top, 101.0))
        _label_ends(axes, ends)
        return to_png(figure)
    columns = min(3, len(verifiers))
    height = -(-len(verifiers) // columns)
    figure, _ = canvas(theme, (4.2 * columns, 3.3 * height + 0.7), panels=columns, rows=height)
    kinds = list(dict.fromkeys(kind for rule in rules if (kind := split_rule(rule)[1]) and split_rule(rule)[0]))
    styles = _styles([rule for rule in rules if not split_rule(rule)[0]], theme)
    for i, kind in enumerate(kinds):
        marker = "os^vD"[i % 5]
        styles |= {f"{v}/{kind}": (theme.series[i % len(theme.series)], "-", marker) for v in verifiers}
    points = [point for curve in found.curves.values() for point in curve]
    low, high = (100 * f(getattr(p, key) for p in points) for f, key in ((min, "low"), (max, "high")))
    for axes in figure.axes[len(verifiers) :]:
        axes.remove()
    for axes, verifier in zip(figure.axes, verifiers, strict=True):
        own = [rule for rule in rules if split_rule(rule)[0] in ("", verifier)]
        _draw_curves(axes, found, own, styles, theme)
        axes.set_ylim(max(low - 1, 0), min(high + 1, 101))
        axes.set_title(verifier, color=theme.ink, fontsize=11, loc="left", fontweight="bold")
    figure.supylabel("problems solved (%)", color=theme.ink, fontsize=10)
    lines = dict(zip([kind_label(split_rule(r)[1] or r) for r in own], axes.get_lines(), strict=True))
    figure.legend(
        lines.values(), lines.keys(), loc="outside upper center", ncols=2 * columns, frameon=False,
        labelcolor=theme.ink,
    )  # fmt: skip
    return to_png(figure)


def _draw_curves(
    axes: Axes,
    found: Accuracy,
    rules: Sequence[str],
    styles: Mapping[str, tuple[str, Any, str]],
    theme: Theme,
) -> list[tuple[float, str, str]]:
    """Plot the curves of rules with their bands.

    Returns:
        Value, text and colour of each curve at the largest N.
    """
    sizes, ends = found.sizes, []
    for rule in rules:
        curve = found.curves[rule]
        mean, low, high = ([100 * getattr(point, key) for point in curve] for key in ("mean", "low", "high"))
        colour, dashes, marker = styles[rule]
        axes.fill_between(sizes, low, high, color=colour, alpha=0.11 if len(rules) < 7 else 0.07, linewidth=0)
        axes.plot(
            sizes, mean, color=colour, linestyle=dashes, marker=marker, markersize=5.5, linewidth=2, zorder=3,
            markerfacecolor=colour if marker != "s" else theme.page, clip_on=False,
        )  # fmt: skip
        ends.append((mean[-1], f"{rule_label(rule)}  {mean[-1]:.1f}", colour))
    axes.set_xscale("log", base=2)
    axes.set_xlim(sizes[0] / 1.08, sizes[-1] * (1.02 if len(sizes) > 1 else 1.08))
    axes.set_xticks(_ticks(sizes), [str(n) for n in _ticks(sizes)])
    axes.minorticks_off()
    axes.set_xlabel("N, samples per problem")
    return ends


@texts_as_they_are
def reliability_figure(groups: Mapping[str, Mapping[str, Sequence[Bin]]], theme: Theme = LIGHT) -> bytes:
    """Plot the share correct against the value, one line per verifier.

    One panel per kind (steps, solutions). The area of a point grows with the number of values in its bin.

    Returns:
        PNG bytes.
    """
    figure, first = canvas(theme, (4.6 * len(groups), 4.4), panels=len(groups))
    names = sorted({name for lines in groups.values() for name in lines})
    colours = {name: theme.series[i % len(theme.series)] for i, name in enumerate(names)}
    for axes, (title, lines) in zip(figure.axes, groups.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=theme.muted, linestyle=(0, (1, 2)), linewidth=1.5)
        for name, bins in lines.items():
            values, correct = [b.value for b in bins], [b.correct for b in bins]
            most = max(b.count for b in bins)
            axes.plot(values, correct, color=colours[name], linewidth=1.6, label=name, zorder=2)
            areas = [12 + 130 * b.count / most for b in bins]
            axes.scatter(values, correct, s=areas, color=colours[name], edgecolors=theme.page, linewidth=0.8, zorder=3)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xlabel="value given by the verifier")
        axes.set_title(title, color=theme.ink, fontsize=11, loc="left", fontweight="bold")
        axes.legend(frameon=False, labelcolor=theme.ink, loc="upper left", fontsize=9.5)
    first.set_ylabel("share correct")
    return to_png(figure)


def _plain_styles(theme: Theme) -> dict[str, tuple[str, Any, str]]:
    """Return colour, dashes and marker of the rules without a verifier."""
    return {
        "pass@1": (theme.muted, (0, (1, 1.6)), ""),
        "majority": (theme.ink, "-", "o"),
        "shortest": (theme.muted, "-", "v"),
        "oracle": (theme.muted, (0, (5, 3)), ""),
    }


def _styles(rules: Sequence[str], theme: Theme) -> dict[str, tuple[str, Any, str]]:
    """Return colour, dashes and marker of each rule.

    One colour per verifier, so that its rules are recognised as belonging together.
    """
    styles = _plain_styles(theme)
    verifiers = list(dict.fromkeys(split_rule(rule)[0] for rule in rules if rule not in styles))
    looks = {"best_of_n": ("-", "o"), "weighted_vote": ((0, (6, 1.5, 1.5, 1.5)), "s")}
    for rule in rules:
        if rule not in styles:
            verifier, kind, _ = split_rule(rule)
            dashes, marker = looks.get(kind, ((0, (2, 1.2)), "^"))
            styles[rule] = (theme.series[verifiers.index(verifier) % len(theme.series)], dashes, marker)
    return styles


def _ticks(sizes: Sequence[int]) -> list[int]:
    """Return the sizes, without those too close to the largest one's label."""
    return [n for n in sizes[:-1] if n * 1.25 <= sizes[-1]] + [sizes[-1]]


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    bottom, top = axes.get_ylim()
    order = sorted(range(len(ends)), key=lambda i: ends[i][0])
    spread = spread_out([(ends[i][0] - bottom) / (top - bottom) for i in order], gap=0.052)
    for i, height in zip(order, spread, strict=True):
        value, text, colour = ends[i]
        # Plain lines: an annotation's arrow, cut off at both ends, takes a fifth of a report's time.
        axes.plot(
            (1.005, 1.03), ((value - bottom) / (top - bottom), height), transform=axes.transAxes, color=colour,
            linewidth=0.7, alpha=0.6, clip_on=False,
        )  # fmt: skip
        axes.text(1.035, height, text, transform=axes.transAxes, va="center", color=colour, fontsize=10)


def spread_out(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights apart to at least ``gap``.

    Each cluster stays centred on its mean.
    """
    clusters: list[list[float]] = []
    for height in heights:
        clusters.append([height])
        while len(clusters) > 1 and _bottom(clusters[-1], gap) < _top(clusters[-2], gap) + gap:
            last = clusters.pop()
            clusters[-1] += last
    return [_bottom(cluster, gap) + i * gap for cluster in clusters for i in range(len(cluster))]


def _bottom(cluster: Sequence[float], gap: float) -> float:
    return sum(cluster) / len(cluster) - gap * (len(cluster) - 1) / 2


def _top(cluster: Sequence[float], gap: float) -> float:
    return _bottom(cluster, gap) + gap * (len(cluster) - 1)


def canvas(theme: Theme, size: tuple[float, float], panels: int = 1, rows: int = 1) -> tuple[Figure, Axes]:
    """Make a figure with panels in the colours of a theme.

    Returns:
        The figure and its first panel.
    """
    # Not pyplot: it keeps figures in memory, and may need a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor=theme.page)
    for axes in figure.subplots(rows, panels, squeeze=False, sharey=rows > 1).flat:
        axes.set_facecolor(theme.page)
        axes.grid(color=theme.grid, linewidth=0.8)
        axes.set_axisbelow(True)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(theme.muted)
        axes.tick_params(colors=theme.muted, length=0, labelsize=10)
        axes.xaxis.label.set_color(theme.ink)
        axes.yaxis.label.set_color(theme.ink)
    return figure, figure.axes[0]


def to_png(figure: Figure) -> bytes:
    """Render a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=160, facecolor=figure.get_facecolor())
    return buffer.getvalue()
