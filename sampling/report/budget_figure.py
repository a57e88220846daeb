"""Plot accuracy against budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sampling.report.budget_summary import BudgetPoint, Budgets
from sampling.report.drawing import LIGHT, Width, canvas, text_size, texts_as_they_are

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "^sDvPXp"


@texts_as_they_are
def budget_figure(found: Budgets, width: Width = "wide") -> Figure:
    """Plot accuracy by the final rule against budget.

    One panel for sampled tokens, another for FLOPs where they are known. One line for each curve, with 95 % intervals;
    best-of-N and its majority vote are bands. Cost axes are binary logarithmic.
    """
    units = ["tokens"]
    if any(point.flops is not None for curve in found.curves.values() for point in curve):
        units.append("flops")
    if width == "wide":
        figure, first = canvas(width, 4.9, columns=len(units))
    else:
        figure, first = canvas(width, 2.9 * len(units) + 0.5, rows=len(units))
    for axes, unit in zip(figure.axes, units, strict=True):
        _draw(axes, found, unit)
    low, high = (f(axes.get_ylim()[i] for axes in figure.axes) for i, f in enumerate((min, max)))
    for axes in figure.axes:
        axes.set_ylim(max(low, -1.0), min(high, 102.0))  # room for markers at 0 and 100
        axes.set_ylabel("problems solved (%)")
    handles, labels = first.get_legend_handles_labels()
    columns = min(4 if width == "wide" else 2, len(labels))
    figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, frameon=False, labelcolor=LIGHT.ink,
        fontsize=text_size(width),
    )  # fmt: skip
    return figure


def _draw(axes: Axes, found: Budgets, unit: str) -> None:
    number = 0
    for name, curve in found.curves.items():
        known = [point for point in curve if getattr(point, unit) is not None]
        if not known:
            continue
        costs = [getattr(point, unit) for point in known]
        if found.best_of_n and any(point.search == found.best_of_n for point in known):
            _draw_band(axes, name, costs, known, found.final_rule, LIGHT.ink, "-")
            if found.final_rule != "majority":
                paid = [point.majority_flops if unit == "flops" else point.tokens for point in known]
                _draw_band(axes, f"{name}, majority vote", paid, known, "majority", LIGHT.muted, (0, (4, 2)))
            continue
        colour, marker = LIGHT.series[number % len(LIGHT.series)], _MARKERS[number % len(_MARKERS)]
        number += 1
        mean, low, high = _levels(known, found.final_rule)
        below, above = ([abs(m - e) for m, e in zip(mean, ends, strict=True)] for ends in (low, high))
        axes.errorbar(
            costs, mean, yerr=[below, above], color=colour, marker=marker, markersize=6, linewidth=1.8, elinewidth=1.1,
            capsize=2.5, label=name, zorder=3,
        )  # fmt: skip
    from matplotlib.ticker import EngFormatter, LogLocator

    axes.set_xscale("log", base=2 if unit == "tokens" else 10)
    if unit == "flops":
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}" if unit == "tokens" else EngFormatter())
    axes.minorticks_off()
    axes.set_xlabel({"tokens": "sampled tokens per problem", "flops": "FLOPs per problem"}[unit])


def _draw_band(
    axes: Axes, name: str, costs: Sequence[Any], curve: Sequence[BudgetPoint], kind: str, colour: str, dashes: Any
) -> None:  # fmt: skip
    mean, low, high = _levels(curve, kind)
    axes.fill_between(costs, low, high, color=colour, alpha=0.1, linewidth=0)
    axes.plot(costs, mean, color=colour, linestyle=dashes, marker="o", markersize=4, linewidth=1.8, label=name)


def _levels(curve: Sequence[BudgetPoint], kind: str) -> list[list[float]]:
    return [[100 * getattr(point.accuracy[kind], key) for point in curve] for key in ("mean", "low", "high")]
