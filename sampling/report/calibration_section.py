"""Show a calibration as a table."""

from __future__ import annotations

from collections.abc import Callable

from sampling.report.section import Section, decimal, percent, points
from sampling.selection.calibration import LEARNED, Calibrations, Measured


def calibration_section(name: str, made: Calibrations) -> Section:
    """Describe what the calibration of one verifier changes, by aggregation."""

    def change(key: str, one: Measured, shown: Callable[[float], str]) -> str:
        after = shown(getattr(one.after, key))
        return after if one.before is None else f"{shown(getattr(one.before, key))} → {after}"

    def difference(found: list[float]) -> str:
        return f"{points(found[0])} ({points(found[1])} to {points(found[2])})" if found else "–"

    found = made.verifiers[name]
    of = "each step's value" if found.target == "steps" else "the aggregated score"
    rows = []
    for how, one in found.measured.items():
        mark = " *" if how == found.aggregation else ""
        rows.append([
            how + mark, change("ece", one, decimal),
            change("brier", one, decimal),
            change("best_of_n", one, percent),
            change("weighted_vote", one, percent),
            difference(one.gain), difference(one.over_majority), difference(one.learned_over),
        ])  # fmt: skip
    header = [
        "aggregation", "ECE", "Brier", "best-of-N", "weighted vote", "gain", "over majority", f"{LEARNED} over it"
    ]  # fmt: skip
    return Section(title=f"{name}: {made.method} map of {of}, {found.num_labels:,} labels", header=header, rows=rows)
