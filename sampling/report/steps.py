"""How good the verifiers' values are: step by step, and as scores of solutions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sampling.report.collect import Collected, Solutions, Steps
from stepverify.aggregate import AGGREGATIONS
from stepverify.statistics import (
    aggregate_all,
    auc,
    auc_within,
    calibration_error,
    f1,
    mean,
    pearson,
    ranks,
    reliability,
)


def step_statistics(collected: Collected) -> dict[str, Any]:
    """Verifier → measures of its values of labelled steps, beside what position and length alone would tell.

    Verifiers that do not judge steps are left out. ``subsets`` holds the same of each subset, where there are several.
    """
    found = {}
    for name, judged in collected.verifiers.items():
        if judged.of_steps:
            by_subset = {subset: _steps(judged.steps, rows) for subset, rows in parts(judged.steps, collected.subsets)}
            right = np.frombuffer(judged.steps.right) == 1
            bins = reliability(np.frombuffer(judged.steps.values), right)
            found[name] = by_subset.pop("") | {"subsets": by_subset, "reliability": bins}
    return found


def parts(of: Any, subsets: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and rows of each subset, where there are several; then those of all, named ''.

    Args:
        of: flat arrays, ``subsets`` among them.
        subsets: their names.
    """
    numbers = np.frombuffer(of.subsets).astype(int)
    if len(subsets) > 1:
        for number in np.unique(numbers):
            yield subsets[number] or "(none)", numbers == number
    yield "", np.ones(len(numbers), bool)


def _steps(steps: Steps, rows: np.ndarray) -> dict[str, Any]:
    values, right = np.frombuffer(steps.values)[rows], np.frombuffer(steps.right)[rows] == 1
    return {
        "num_steps": len(values),
        "base_rate": float(right.mean()),
        "accuracy": float(((values >= 0.5) == right).mean()),
        "auc": auc(values, right),
        # A later step, or a longer one, is the wrong one: what needs no verifier.
        "auc_position": auc(-np.frombuffer(steps.places)[rows], right),
        "auc_length": auc(-np.frombuffer(steps.lengths)[rows], right),
        "f1_error": f1(values < 0.5, ~right),
        "f1_all_wrong": f1(np.ones(len(right), bool), ~right),
        "ece": calibration_error(reliability(values, right)),
    }


def solution_statistics(collected: Collected, used: Mapping[str, str]) -> dict[str, Any]:
    """Verifier → measures of its scores of graded solutions.

    Args:
        collected: verifiers without graded solutions are left out.
        used: verifier → aggregation, for the reliability of its scores; ``last`` where unknown.
    """
    return {
        name: _solutions(judged.solutions, used.get(name, "last"))
        for name, judged in collected.verifiers.items()
        if judged.solutions.right
    }


def _solutions(c: Solutions, used: str) -> dict[str, Any]:
    right = np.frombuffer(c.right) == 1
    lengths = {"steps": np.frombuffer(c.num_steps), "tokens": np.frombuffer(c.num_tokens)}
    counts = np.frombuffer(c.counts).astype(int)
    many = bool((counts > 1).any())
    by_how, scores = {}, aggregate_all(np.frombuffer(c.values), counts)
    for how in AGGREGATIONS if many else ("last",):
        chance = _chance(scores[how], how)
        by_how[how] = {"auc": auc(scores[how], right), "brier": float(((chance - right) ** 2).mean())}
        by_how[how]["auc_within"] = auc_within(scores[how], right, np.frombuffer(c.problems))
        by_how[how]["ece"] = calibration_error(reliability(chance, right))
        by_how[how] |= _length_correlations(chance, scores[how], lengths)
    used = used if used in by_how else "last"
    return {
        "num_solutions": len(right),
        "base_rate": float(right.mean()),
        "used": used,
        "aggregations": by_how,
        "fewest_steps": {
            "auc": auc(-lengths["steps"], right),
            "auc_within": auc_within(-lengths["steps"], right, np.frombuffer(c.problems)),
        },
        # How far right answers themselves go with length: what a perfect verifier would show.
        "truth": _length_correlations(right.astype(float), right, lengths),
        "minimum_position": _minimum_position(np.frombuffer(c.values), counts) if many else None,
        "reliability": reliability(_chance(scores[used], used), right),
    }


def _minimum_position(values: np.ndarray, counts: np.ndarray) -> dict[str, float | None]:
    """Where the lowest value of a solution stands, from 0 (first) to 1 (last); the first one of equals."""
    starts = np.cumsum(counts) - counts
    lowest = np.repeat(np.minimum.reduceat(values, starts), counts)
    places = np.where(values == lowest, np.arange(len(values)) - np.repeat(starts, counts), len(values))
    first = np.minimum.reduceat(places, starts)[counts > 1] / (counts[counts > 1] - 1)
    return {"mean": mean(first), "at_first": mean(first == 0), "at_last": mean(first == 1)}


def _chance(scores: np.ndarray, how: str) -> np.ndarray:
    # `aggregate` gives the logarithm of a product.
    return np.exp(scores) if how == "prod" else scores


def _length_correlations(chance: np.ndarray, scores: np.ndarray, lengths: Mapping[str, np.ndarray]) -> dict[str, Any]:
    found = {}
    for unit, length in lengths.items():
        known = ~np.isnan(length)
        found[f"spearman_{unit}"] = pearson(ranks(scores[known]), ranks(length[known]))
        found[f"pearson_{unit}"] = pearson(chance[known], length[known])
    return found
