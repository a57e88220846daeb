"""Plot accuracy against N, accuracy at one N, and reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

from sampling.report.accuracy import kind_label, rule_label, split_rule
from sampling.report.drawing import LIGHT, Width, canvas, shortened, spread_out, text_size, texts_as_they_are
from sampling.report.summary import Accuracy
from stepverify.statistics import Bin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 12
"""Rules on one set of axes; of more, each verifier has its own panel."""


@dataclass(frozen=True, slots=True)
class Style:
    """Hold the look of a line."""

    colour: str
    dashes: Any
    marker: str


@texts_as_they_are
def accuracy_figure(found: Accuracy, width: Width = "wide") -> Figure:
    """Plot accuracy against N with 95 % bands, one line per rule.

    The N axis is binary logarithmic. Up to 12 rules are on one set of axes; each line is labelled at its end, or below
    where the figure is narrow. Of more rules, each verifier has its own panel, without bands, which would cover each
    other; colours and axes are the same in all.
    """
    rules = list(found.curves)
    verifiers = list(dict.fromkeys(v for rule in rules if (v := split_rule(rule)[0])))
    if len(rules) > MOST_LINES and verifiers:
        return _panels(found, rules, verifiers, width)
    # At a width of one column, the names stand below.
    rows = 0 if width == "wide" else ceil(len(rules) / _legend_columns(rules))
    figure, axes = canvas(width, 4.9 if width == "wide" else 2.9 + 0.17 * rows)
    styles = _styles(rules)
    _draw_curves(axes, found, rules, styles)
    axes.set(xlabel="N, samples per problem", ylabel="problems solved (%)")
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, 0.0), min(top, 101.0))
    ends = {rule: 100 * found.curves[rule][-1].mean for rule in rules}
    if width == "wide":
        _label_ends(axes, [(ends[rule], _end_label(rule, ends[rule]), styles[rule].colour) for rule in rules])
    else:
        descending = sorted(rules, key=lambda rule: -ends[rule])
        lines = dict(zip(rules, axes.get_lines(), strict=True))
        _legend(
            figure, [lines[r] for r in descending], [_end_label(r, ends[r]) for r in descending], width,
            columns=_legend_columns(rules), place="outside lower center",
        )  # fmt: skip
    return figure


def _panels(found: Accuracy, rules: Sequence[str], verifiers: Sequence[str], width: Width) -> Figure:
    columns = min(3 if width == "wide" else 2, len(verifiers))
    rows = ceil(len(verifiers) / columns)
    plain = [rule for rule in rules if not split_rule(rule)[0]]
    kinds = list(dict.fromkeys(kind for rule in rules if (kind := split_rule(rule)[1]) and split_rule(rule)[0]))
    names = [kind_label(rule) for rule in plain] + [kind_label(kind) for kind in kinds]
    in_row = 4 if width == "wide" else 2
    row, legend = (2.5, 0.25) if width == "wide" else (1.75, 0.18)
    figure, _ = canvas(width, row * rows + legend * ceil(len(names) / in_row) + 0.4, rows, columns, shared=True)
    styles = _styles(plain)
    for i, kind in enumerate(kinds):
        style = Style(LIGHT.series[i % len(LIGHT.series)], "-", "os^vD"[i % 5])
        styles |= {f"{v}/{kind}": style for v in verifiers}
    for axes in figure.axes[len(verifiers) :]:
        axes.remove()
    lines: dict[str, Any] = {}
    for axes, verifier in zip(figure.axes, verifiers, strict=True):
        own = [rule for rule in rules if split_rule(rule)[0] in ("", verifier)]
        _draw_curves(axes, found, own, styles, bands=False)
        lines |= zip([kind_label(split_rule(r)[1] or r) for r in own], axes.get_lines(), strict=True)
        title = shortened(verifier, 30 if width == "wide" else 20)
        axes.set_title(title, color=LIGHT.ink, fontsize=text_size(width), loc="left", fontweight="bold")
    for axes in figure.axes[-columns:]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    figure.supylabel("problems solved (%)", color=LIGHT.ink, fontsize=text_size(width))
    figure.supxlabel("N, samples per problem", color=LIGHT.ink, fontsize=text_size(width))
    _legend(figure, [lines[name] for name in names], names, width, columns=in_row)
    return figure


def _draw_curves(
    axes: Axes, found: Accuracy, rules: Sequence[str], styles: Mapping[str, Style], bands: bool = True
) -> None:  # fmt: skip
    """Plot the curves of rules, with their bands if wanted; one line each, in order."""
    sizes = found.sizes
    for rule in rules:
        curve, style = found.curves[rule], styles[rule]
        mean, low, high = ([100 * getattr(point, key) for point in curve] for key in ("mean", "low", "high"))
        if bands:
            axes.fill_between(sizes, low, high, color=style.colour, alpha=0.11 if len(rules) < 7 else 0.07, linewidth=0)
        axes.plot(
            sizes, mean, color=style.colour, linestyle=style.dashes, marker=style.marker, markersize=5, linewidth=1.8,
            zorder=3, markerfacecolor=style.colour if style.marker != "s" else LIGHT.page, clip_on=False,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xlim(sizes[0] / 1.08, sizes[-1] * (1.02 if len(sizes) > 1 else 1.08))
    axes.set_xticks(_ticks(sizes), [str(n) for n in _ticks(sizes)])
    axes.minorticks_off()


@texts_as_they_are
def dots_figure(found: Accuracy, width: Width = "wide") -> Figure:
    """Plot the accuracy of each rule at the largest N with its 95 % interval, on an axis zoomed to the data."""
    rules = list(found.accuracy)
    figure, axes = canvas(width, 0.5 + (0.24 if width == "wide" else 0.2) * len(rules))
    styles = _styles(rules)
    for y, rule in enumerate(rules):
        one, colour = found.accuracy[rule], styles[rule].colour
        axes.plot([100 * one.low, 100 * one.high], [y, y], color=colour, linewidth=2, alpha=0.55, solid_capstyle="butt")
        axes.plot([100 * one.mean], [y], color=colour, marker=styles[rule].marker or "o", markersize=6, linestyle="")
    axes.grid(visible=False, axis="y")
    axes.set(ylim=(len(rules) - 0.5, -0.5), xlabel=f"problems solved at N = {found.num_samples} (%)")
    most = 44 if width == "wide" else 26
    axes.set_yticks(range(len(rules)), [shortened(rule_label(rule), most) for rule in rules], color=LIGHT.ink)
    return figure


@texts_as_they_are
def reliability_figure(groups: Mapping[str, Mapping[str, Sequence[Bin]]], width: Width = "wide") -> Figure:
    """Plot the share correct against the value, one line per verifier.

    One panel per kind (steps, solutions). The area of a point grows with the number of values in its bin.
    """
    names = sorted({name for lines in groups.values() for name in lines})
    in_row = 3 if width == "wide" else 2
    legend = 0.22 * ceil(len(names) / in_row)
    if width == "wide":
        figure, _ = canvas(width, 4.3 + legend, columns=len(groups))
    else:
        figure, _ = canvas(width, 3.6 * len(groups) + legend, rows=len(groups))
    styles = {
        name: (LIGHT.series[i % len(LIGHT.series)], "os^D"[i // len(LIGHT.series) % 4]) for i, name in enumerate(names)
    }
    handles: dict[str, Any] = {}
    for axes, (title, lines) in zip(figure.axes, groups.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=LIGHT.muted, linestyle=(0, (1, 2)), linewidth=1.5)
        for name, bins in lines.items():
            values, correct = [b.value for b in bins], [b.correct for b in bins]
            colour, marker = styles[name]
            areas = [12 + 100 * b.count / max(b.count for b in bins) for b in bins]
            axes.plot(values, correct, color=colour, linewidth=1.5, zorder=2)
            handles[name] = axes.scatter(
                values, correct, s=areas, color=colour, marker=marker, edgecolors=LIGHT.page, linewidth=0.8, zorder=3
            )
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="value given by the verifier", ylabel="share correct")
        axes.set_aspect("equal")
        axes.set_title(title, color=LIGHT.ink, fontsize=text_size(width), loc="left", fontweight="bold")
    _legend(figure, [handles[name] for name in names], [shortened(name, 28) for name in names], width, columns=in_row)
    return figure


def _legend(
    figure: Figure, handles: Sequence[Any], labels: Sequence[str], width: Width, columns: int,
    place: Literal["outside upper center", "outside lower center"] = "outside upper center",
) -> None:  # fmt: skip
    """Put a legend outside all panels, where it covers no data."""
    figure.legend(
        handles, labels, loc=place, ncols=columns, frameon=False, labelcolor=LIGHT.ink, fontsize=text_size(width),
        columnspacing=1.2, handlelength=2.4, handletextpad=0.6,
    )  # fmt: skip


def _legend_columns(rules: Sequence[str]) -> int:
    return 2 if max(len(_end_label(rule, 0)) for rule in rules) <= 22 else 1


def _end_label(rule: str, value: float) -> str:
    return f"{shortened(rule_label(rule), 44)}  {value:.1f}"


def _styles(rules: Sequence[str]) -> dict[str, Style]:
    """Return the style of each rule: one colour per verifier, so that its rules are seen to belong together."""
    styles = {
        "pass@1": Style(LIGHT.muted, (0, (1, 1.6)), ""),
        "majority": Style(LIGHT.ink, "-", "o"),
        "shortest": Style(LIGHT.muted, "-", "v"),
        "oracle": Style(LIGHT.muted, (0, (5, 3)), ""),
    }
    verifiers = list(dict.fromkeys(split_rule(rule)[0] for rule in rules if rule not in styles))
    looks = {"best_of_n": ("-", "o"), "weighted_vote": ((0, (6, 1.5, 1.5, 1.5)), "s")}
    for rule in rules:
        if rule not in styles:
            verifier, kind, _ = split_rule(rule)
            styles[rule] = Style(
                LIGHT.series[verifiers.index(verifier) % len(LIGHT.series)], *looks.get(kind, ((0, (2, 1.2)), "^"))
            )
    return styles


def _ticks(sizes: Sequence[int]) -> list[int]:
    """Return the sizes, without those too close to the largest one's label."""
    return [n for n in sizes[:-1] if n * 1.25 <= sizes[-1]] + [sizes[-1]]


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Label lines at their ends: to the right of the axes, at least a line of text apart."""
    bottom, top = axes.get_ylim()
    order = sorted(range(len(ends)), key=lambda i: ends[i][0])
    spread = spread_out([(ends[i][0] - bottom) / (top - bottom) for i in order], gap=0.047, low=0.0, high=1.0)
    for i, height in zip(order, spread, strict=True):
        value, text, colour = ends[i]
        # Plain lines: an annotation's arrow, cut off at both ends, takes a fifth of a report's time.
        axes.plot(
            (1.012, 1.035), ((value - bottom) / (top - bottom), height), transform=axes.transAxes, color=colour,
            linewidth=0.7, alpha=0.6, clip_on=False,
        )  # fmt: skip
        axes.text(1.042, height, text, transform=axes.transAxes, va="center", color=colour, fontsize=10)
