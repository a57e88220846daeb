"""Scored solutions → how good the verifiers' values are: step by step, and as scores of solutions."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sampling.scored import is_right, read_scored
from stepverify.aggregate import AGGREGATIONS
from stepverify.records import StepLabel

NUM_BINS = 15


def _floats() -> array[float]:
    return array("d")


@dataclass(slots=True)
class _Collected:
    """What one verifier said, in flat arrays.

    Of labelled steps ``values`` and ``truths``; of solutions with labels the first error ``found`` and the true
    ``first`` one; of graded solutions the others, where ``scores`` holds ``counts`` values of each. ``by_step``:
    every solution had one value a step. One that has one step and one value does not make an outcome verifier's a
    judgement of steps.
    """

    by_step: bool = True
    values: array[float] = field(default_factory=_floats)
    truths: array[float] = field(default_factory=_floats)
    found: array[float] = field(default_factory=_floats)
    first: array[float] = field(default_factory=_floats)
    scores: array[float] = field(default_factory=_floats)
    counts: array[float] = field(default_factory=_floats)
    right: array[float] = field(default_factory=_floats)
    num_steps: array[float] = field(default_factory=_floats)
    num_tokens: array[float] = field(default_factory=_floats)


def score_statistics(path: Path, used: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Statistics of steps and of solutions, each by verifier; a verifier without the data for them is left out.

    Args:
        path: scored solutions; those without ``correct`` count for the steps only.
        used: verifier → aggregation, for the reliability of its solution scores; ``last`` where unknown.
    """
    collected: dict[str, _Collected] = {}
    for _, solution, num_tokens in read_scored(path, labels=True):
        num_steps, right = len(solution.steps), is_right(solution)
        for name, values in solution.scores.items():
            if name not in collected:
                collected[name] = _Collected()
            into = collected[name]
            into.by_step &= not values or len(values) == num_steps
            if solution.step_labels and len(values) == num_steps:
                _add_steps(into, values, solution.step_labels)
            if solution.correct is not None and values:
                into.scores.extend(values)
                into.counts.append(len(values))
                into.right.append(right)
                into.num_steps.append(num_steps)
                into.num_tokens.append(np.nan if num_tokens is None else num_tokens)
    steps = {name: _steps(c) for name, c in collected.items() if c.values and c.by_step}
    solutions = {name: _solutions(c, used.get(name, "last")) for name, c in collected.items() if c.right}
    return steps, solutions


def step_truth(label: StepLabel | None) -> bool | None:
    """Whether a step is right: rated neutral or better, or reached the right answer in any rollout; None: unknown.

    Neutral counts as right (Lightman et al. 2023, section 2.6); one rollout is enough (Wang et al. 2023, section 3.3).
    """
    if label is None:
        return None
    return label.rating >= 0 if label.rating is not None else bool(label.share)


def first_error(truths: Sequence[bool | None]) -> int | None:
    """The index of the first wrong step; -1 where all are right; None where an unknown step comes before it."""
    for index, truth in enumerate(truths):
        if not truth:
            return index if truth is False else None
    return -1


def _add_steps(into: _Collected, values: Sequence[float], labels: Sequence[StepLabel | None]) -> None:
    truths = [step_truth(label) for label in labels]
    for value, truth in zip(values, truths, strict=True):
        if truth is not None:
            into.values.append(value)
            into.truths.append(truth)
    if (expected := first_error(truths)) is not None:
        into.first.append(expected)
        into.found.append(next((i for i, value in enumerate(values) if value < 0.5), -1))


def _steps(c: _Collected) -> dict[str, Any]:
    values, right = np.frombuffer(c.values), np.frombuffer(c.truths) == 1
    found, first = np.frombuffer(c.found), np.frombuffer(c.first)
    bins = reliability(values, right)
    hits, clean = found == first, first == -1
    wrong_rate, clean_rate = _mean(hits[~clean]), _mean(hits[clean])
    harmonic = None
    if wrong_rate is not None and clean_rate is not None:
        harmonic = 2 * wrong_rate * clean_rate / (wrong_rate + clean_rate) if wrong_rate + clean_rate else 0.0
    return {
        "num_steps": len(values),
        "base_rate": float(right.mean()),
        "accuracy": float(((values >= 0.5) == right).mean()),
        "auc": auc(values, right),
        "f1_error": f1(values < 0.5, ~right),
        "ece": calibration_error(bins),
        "num_solutions": len(first),
        "first_error_accuracy": _mean(hits),
        "first_error_accuracy_wrong": wrong_rate,
        "first_error_accuracy_right": clean_rate,
        "first_error_f1": harmonic,
        "reliability": bins,
    }


def _solutions(c: _Collected, used: str) -> dict[str, Any]:
    right = np.frombuffer(c.right) == 1
    lengths = {"steps": np.frombuffer(c.num_steps), "tokens": np.frombuffer(c.num_tokens)}
    counts = np.frombuffer(c.counts).astype(int)
    many = bool((counts > 1).any())
    by_how, scores = {}, aggregate_all(np.frombuffer(c.scores), counts)
    for how in AGGREGATIONS if many else ("last",):
        chance = _chance(scores[how], how)
        by_how[how] = {"auc": auc(scores[how], right), "brier": float(((chance - right) ** 2).mean())}
        by_how[how]["ece"] = calibration_error(reliability(chance, right))
        by_how[how] |= _length_correlations(chance, scores[how], lengths)
    used = used if used in by_how else "last"
    return {
        "num_solutions": len(right),
        "base_rate": float(right.mean()),
        "used": used,
        "aggregations": by_how,
        # How far right answers themselves go with length: what a perfect verifier would show.
        "truth": _length_correlations(right.astype(float), right, lengths),
        "minimum_position": _minimum_position(np.frombuffer(c.scores), counts) if many else None,
        "reliability": reliability(_chance(scores[used], used), right),
    }


def aggregate_all(values: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """:func:`stepverify.aggregate.aggregate` by every rule, for many solutions at once.

    Args:
        values: (values of all solutions,), one solution after the other.
        counts: (solutions,), how many of them belong to each; at least 1.
    """
    ends = np.cumsum(counts)
    starts = ends - counts
    with np.errstate(divide="ignore"):
        logarithms = np.log(values)
    return {
        "prod": np.add.reduceat(logarithms, starts),
        "min": np.minimum.reduceat(values, starts),
        "last": values[ends - 1],
        "mean": np.add.reduceat(values, starts) / counts,
        "max": np.maximum.reduceat(values, starts),
    }


def _minimum_position(values: np.ndarray, counts: np.ndarray) -> dict[str, float | None]:
    """Where the lowest value of a solution stands, from 0 (first) to 1 (last); the first one of equals."""
    starts = np.cumsum(counts) - counts
    lowest = np.repeat(np.minimum.reduceat(values, starts), counts)
    places = np.where(values == lowest, np.arange(len(values)) - np.repeat(starts, counts), len(values))
    first = np.minimum.reduceat(places, starts)[counts > 1] / (counts[counts > 1] - 1)
    return {"mean": _mean(first), "at_first": _mean(first == 0), "at_last": _mean(first == 1)}


def _chance(scores: np.ndarray, how: str) -> np.ndarray:
    # `aggregate` gives the logarithm of a product.
    return np.exp(scores) if how == "prod" else scores


def _length_correlations(chance: np.ndarray, scores: np.ndarray, lengths: Mapping[str, np.ndarray]) -> dict[str, Any]:
    found = {}
    for unit, length in lengths.items():
        known = ~np.isnan(length)
        found[f"spearman_{unit}"] = _pearson(ranks(scores[known]), ranks(length[known]))
        found[f"pearson_{unit}"] = _pearson(chance[known], length[known])
    return found


def reliability(chance: np.ndarray, right: np.ndarray, num_bins: int = NUM_BINS) -> list[dict[str, float]]:
    """Mean value, share right and count in each of ``num_bins`` equal parts of [0, 1]; empty ones are left out."""
    places = np.clip(np.ceil(chance * num_bins).astype(int) - 1, 0, num_bins - 1)
    counts = np.bincount(places, minlength=num_bins)
    means, shares = (np.bincount(places, weights=w, minlength=num_bins) for w in (chance, right.astype(float)))
    return [
        {"value": float(means[i] / counts[i]), "right": float(shares[i] / counts[i]), "count": int(counts[i])}
        for i in np.flatnonzero(counts)
    ]


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, the mean of the ranks among equals: correlating them is Spearman's coefficient."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[places]


def _pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def auc(scores: np.ndarray, right: np.ndarray) -> float | None:
    """Area under the ROC curve: the chance that a right one scores above a wrong one, a tie counting half."""
    num_right, num_wrong = np.count_nonzero(right), np.count_nonzero(~right)
    if not num_right or not num_wrong:
        return None
    return float((ranks(scores)[right].sum() - num_right * (num_right + 1) / 2) / (num_right * num_wrong))


def f1(found: np.ndarray, truth: np.ndarray) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is found and nothing is there to be found."""
    marked = np.count_nonzero(found) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(found & truth) / marked if marked else 0.0


def calibration_error(bins: Sequence[Mapping[str, float]]) -> float:
    """Expected calibration error over the bins of :func:`reliability` (Guo et al. 2017, section 2)."""
    return sum(b["count"] * abs(b["value"] - b["right"]) for b in bins) / sum(b["count"] for b in bins)
