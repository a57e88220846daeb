"""Measure how well step values find the first error of a solution.

This is ProcessBench's evaluation (Zheng et al. 2024).
"""

from __future__ import annotations

import numpy as np

from sampling.report.collect import Collected, FirstErrors
from sampling.report.first_error_summary import (
    FirstErrorQuality,
    FirstErrorRates,
    LowestValue,
    MeanF1,
    VerifierFirstErrors,
)
from sampling.report.quality import parts
from sampling.report.summary import Estimate
from stepverify.records import InputError
from stepverify.statistics import mean, means_and_bootstrap, spread

HALF = 0.5


def first_error_statistics(
    collected: Collected, threshold_subset: str | None, num_bootstrap: int, seed: int
) -> dict[str, VerifierFirstErrors]:
    """Measure each verifier's accuracy and F1 of finding first errors.

    The first step with a value below the threshold is predicted to be the first error. For a solution with an error,
    this is correct if it is the labelled step; for a solution without, if no value is below. F1 is the harmonic mean of
    the two accuracies. A solution that a verifier could not read counts as judged incorrectly. The place of the lowest
    value is measured too.

    Args:
        collected: values of solutions whose first error is known; verifiers without step values are left out.
        threshold_subset: the subset on which a threshold is chosen for each verifier, in addition to 1/2.
        num_bootstrap: number of bootstrap resamples of the solutions for each interval; the threshold is kept.
        seed: seed of the resamples.

    Raises:
        InputError: the subset is unknown, or lacks solutions with an error or without.
    """
    if threshold_subset is not None and threshold_subset not in collected.subsets:
        raise InputError(f"threshold_subset: {threshold_subset!r}: no solution has it; known: {collected.subsets}")
    found = {}
    for name, judged in collected.verifiers.items():
        if judged.of_steps and judged.firsts.first:
            chosen = None
            if threshold_subset is not None:
                rows = np.frombuffer(judged.firsts.subsets) == collected.subsets.index(threshold_subset)
                chosen = choose_threshold(*_ranges(judged.firsts, rows))
                if chosen is None:
                    raise InputError(
                        f"threshold_subset: {threshold_subset}: choosing a threshold needs solutions with and "
                        "without an error"
                    )
            found[name] = _by_threshold(judged.firsts, collected.subsets, threshold_subset, chosen, num_bootstrap, seed)
    return found


def choose_threshold(low: np.ndarray, high: np.ndarray, incorrect: np.ndarray) -> float | None:
    """Choose the threshold in (0, 1] with the highest F1.

    It is the middle of the widest range of thresholds with that F1. F1 only changes where a solution comes to be judged
    correctly (``low``) or ceases to be (``high``), so all ranges between those are compared, including the one that
    contains 1/2.

    Args:
        low: (M,), a solution is judged correctly at thresholds above ...
        high: (M,), ... and up to this.
        incorrect: (M,), whether it has an error.

    Returns:
        None without solutions of both kinds.
    """
    if incorrect.all() or not incorrect.any():
        return None
    some = low < high
    borders = np.unique(np.clip(np.concatenate([[0.0, 1.0], low[some], high[some]]), 0.0, 1.0))
    below, above = borders[:-1], borders[1:]
    middle = (below + above) / 2
    at = np.where(middle > below, middle, above)  # adjacent floats have no middle
    hits = [
        np.searchsorted(np.sort(low[rows]), at, "left") - np.searchsorted(np.sort(high[rows]), at, "left")
        for rows in (some & incorrect, some & ~incorrect)
    ]
    f1 = harmonic_mean(hits[0] / np.count_nonzero(incorrect), hits[1] / np.count_nonzero(~incorrect))
    return float(at[np.argmax(np.where(f1 == f1.max(), above - below, -1.0))])


def harmonic_mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute the harmonic mean, 2ab / (a + b).

    0 if both are 0, NaN if one is NaN.
    """
    return np.divide(2 * a * b, a + b, out=np.zeros_like(a + b), where=a + b != 0)


def _ranges(firsts: FirstErrors, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.frombuffer(firsts.low)[rows], np.frombuffer(firsts.high)[rows], np.frombuffer(firsts.first)[rows] >= 0


def _by_threshold(
    firsts: FirstErrors, subsets: list[str], chosen_on: str | None, chosen: float | None, num_bootstrap: int, seed: int
) -> VerifierFirstErrors:
    """Measure each subset, all solutions, and the subsets' mean F1.

    Each subset has the same weight in the mean.
    """
    thresholds = {"half": HALF} | ({} if chosen is None else {"chosen": chosen})
    groups: dict[str, FirstErrorQuality] = {}
    resampled: dict[str, list[np.ndarray]] = {key: [] for key in thresholds}
    for number, (subset, rows) in enumerate(parts(firsts, subsets)):
        low, high, incorrect = _ranges(firsts, rows)
        rates = {}
        for key, at in thresholds.items():
            hit = (low < at) & (at <= high)
            columns = np.stack([incorrect, incorrect & hit, ~incorrect, ~incorrect & hit], axis=1).astype(float)
            # Row 0 is the sample itself. Subsets are resampled independently.
            means = means_and_bootstrap(columns, num_bootstrap, (seed, number))
            with np.errstate(invalid="ignore"):
                on_incorrect, on_correct = means[:, 1] / means[:, 0], means[:, 3] / means[:, 2]
            f1 = harmonic_mean(on_incorrect, on_correct)
            rates[key] = FirstErrorRates(
                threshold=at,
                erroneous_accuracy=_estimate(on_incorrect),
                correct_accuracy=_estimate(on_correct),
                f1=_estimate(f1),
            )
            resampled[key].append(f1)
        groups[subset] = FirstErrorQuality(
            num_incorrect=int(incorrect.sum()), num_correct=int((~incorrect).sum()),
            half=rates["half"], chosen=rates.get("chosen"), lowest=_lowest(firsts, rows),
        )  # fmt: skip
    pooled = groups.pop("")
    means_of = {key: _estimate(np.mean(f1[:-1], axis=0)) for key, f1 in resampled.items()} if groups else {}
    return VerifierFirstErrors(
        num_unread=int(np.isnan(np.frombuffer(firsts.lowest)).sum()), chosen_on=chosen_on, subsets=groups, all=pooled,
        mean=MeanF1(half=means_of["half"], chosen=means_of.get("chosen")) if groups else None,
    )  # fmt: skip


def _estimate(values: np.ndarray) -> Estimate | None:
    """Return the estimate with its 95 % interval; None for NaN.

    ``values``: the estimate itself, then those of its resamples.
    """
    if np.isnan(values[0]):
        return None
    return Estimate(mean=float(values[0]), **spread(values))


def _lowest(firsts: FirstErrors, rows: np.ndarray) -> LowestValue:
    lowest, first = np.frombuffer(firsts.lowest)[rows], np.frombuffer(firsts.first)[rows]
    last = np.frombuffer(firsts.num_steps)[rows] - 1
    read, incorrect = ~np.isnan(lowest), first >= 0
    several = read & (last > 0)
    return LowestValue(
        at_first_error=mean((lowest == first)[read & incorrect]),
        place_incorrect=mean(lowest[several & incorrect] / last[several & incorrect]),
        place_first_error=mean(first[several & incorrect] / last[several & incorrect]),
        place_correct=mean(lowest[several & ~incorrect] / last[several & ~incorrect]),
    )
