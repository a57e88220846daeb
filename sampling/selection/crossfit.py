"""Fit calibrations, and measure each problem with what the other problems have fitted. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sampling.selection.calibration import (
    FEATURES,
    LEARNED,
    Calibration,
    Measured,
    Quality,
    Target,
    summaries,
)
from sampling.selection.judged import Judged, Votes
from stepverify.aggregate import Aggregation
from stepverify.calibration import Map, Method, fit_map, logistic_regression, map_by_position, sigmoid
from stepverify.records import InputError
from stepverify.statistics import (
    brier,
    calibration_error,
    low_high,
    means_and_bootstrap,
    reliability,
)

NUM_BOOTSTRAP = 2000
_FEWEST = 50  # labels of each kind that a step position needs for a map of its own
_RIDGE = 1.0  # of the learned weights, on standardized features


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Hold what is fitted for a verifier.

    Attributes:
        method: kind of the maps.
        target: what they make of a value.
        aggregation: of the values, where the target is solutions.
        per_step: a map for each step position with enough labels.
    """

    method: Method
    target: Target
    aggregation: Aggregation
    per_step: bool = False


def calibrate_verifier(judged: Judged, asked: Asked, votes: Votes | None, seed: int) -> Calibration:
    """Fit a verifier's calibration on all problems, and measure it by cross-fitting.

    Without votes, of solutions that are not graded, only the values of steps are measured.

    Raises:
        InputError: labels or values that no map can be fitted to.
    """
    whole = np.ones(len(judged.correct), bool)
    maps, starts, num_labels = fit_maps(judged, asked, whole, judged.weights(judged.values)[asked.aggregation])
    found = Calibration(
        identity=None, target=asked.target, maps=maps, first_steps=starts, num_labels=num_labels,
        aggregation=asked.aggregation if asked.target == "solutions" else None,
        learned=fit_learned(judged, whole) if judged.combines else None,
    )  # fmt: skip
    before, after, values, found.unfitted = cross_fit(judged, asked)
    if judged.truths is not None and asked.target == "steps":
        known = ~np.isnan(judged.truths)
        truth = judged.truths[known] == 1
        found.step_quality = {
            key: [_ece(of[known], truth), brier(of[known], truth)]
            for key, of in (("before", judged.values), ("after", values))
        }
    if votes is not None:
        found.measured = _measure(judged, asked, before, after, votes, seed)
    return found


def cross_fit(
    judged: Judged, asked: Asked
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray, dict[str, str]]:  # fmt: skip
    """Calibrate the solutions of each fold with what is fitted on those of the others.

    Returns:
        Aggregation → probabilities, shape (M,), before and after, where ``learned`` has no before; the values after
        maps of steps; and aggregation → why it has no map, for others than that which was asked for.

    Raises:
        InputError: the aggregation that was asked for, or a position, has no map without one fold.
    """
    before: dict[str, np.ndarray] = dict(judged.weights(judged.values).items())
    after: dict[str, np.ndarray] = {how: np.full(len(judged.correct), np.nan) for how in before}
    if judged.combines:
        after[LEARNED] = np.full(len(judged.correct), np.nan)
    values, unfitted = judged.values.copy(), dict[str, str]()
    for fold in np.unique(judged.folds):
        known, rows = judged.folds != fold, judged.folds == fold
        where = f"{judged.name}: without fold {fold + 1} of {judged.folds.max() + 1}"
        if judged.combines:
            after[LEARNED][rows] = sigmoid(_logits(fit_learned(judged, known), judged)[rows])
        if asked.target == "solutions":
            for how in [how for how in before if how not in unfitted]:
                plain = before[how]
                try:
                    one = fit_map(asked.method, plain[known], judged.correct[known], f"{where}, aggregation {how}")
                except InputError as error:
                    if how == asked.aggregation:
                        raise
                    unfitted[how] = str(error)
                    del after[how]
                    continue
                after[how][rows] = one(plain[rows])
            continue
        maps, starts, _ = fit_maps(judged, asked, known, before[asked.aggregation], where)
        mine = np.repeat(rows, judged.counts)
        values[mine] = map_by_position(maps, starts, judged.values[mine], judged.places[mine])
    return before, after | (dict(judged.weights(values).items()) if asked.target == "steps" else {}), values, unfitted


def fit_maps(
    judged: Judged, asked: Asked, known: np.ndarray, plain: np.ndarray, where: str | None = None
) -> tuple[list[Map], list[int], int]:
    """Fit the map of solutions, or the maps of steps, on some solutions.

    Args:
        judged: values and labels.
        asked: what is fitted.
        known: (M,), the solutions to fit on, booleans.
        plain: (M,), the aggregated values as probabilities.
        where: beginning of error messages.

    Returns:
        Maps, the position at which each begins, from 1, and the number of labels.
    """
    where = where or judged.name
    if asked.target == "solutions":
        return [fit_map(asked.method, plain[known], judged.correct[known], where)], [1], int(known.sum())
    assert judged.truths is not None
    rows = np.repeat(known, judged.counts) & ~np.isnan(judged.truths)
    values, truths, places = judged.values[rows], judged.truths[rows] == 1, judged.places[rows]
    starts = divide_positions(truths, places) if asked.per_step else [1]
    ranges = np.searchsorted(starts, places + 1, side="right") - 1
    maps = [
        fit_map(asked.method, values[ranges == i], truths[ranges == i], f"{where}, from step {at}")
        for i, at in enumerate(starts)
    ]  # fmt: skip
    return maps, starts, len(values)


def divide_positions(truths: np.ndarray, places: np.ndarray) -> list[int]:
    """Divide step positions into ranges with at least 50 correct and 50 incorrect steps each.

    A position with fewer is joined with those after it, and the final range with the one before it.

    Args:
        truths: (M,), booleans.
        places: (M,), positions from 0.

    Returns:
        The position at which each range begins, from 1.
    """
    starts, at, counts = [1], 0, np.zeros(2, int)
    kinds = np.stack([np.bincount(places[truths == kind], minlength=places.max() + 1) for kind in (False, True)])
    for here in kinds.T:
        at, counts = at + 1, counts + here
        if (counts >= _FEWEST).all():
            starts, counts = [*starts, at + 1], np.zeros(2, int)
    return starts[:-1] or [1]


def fit_learned(judged: Judged, known: np.ndarray) -> dict[str, float]:
    """Fit the logistic combination of summaries of step values to the outcomes of solutions.

    Features are standardized; the penalty is half the squared weights.

    Returns:
        Weights of the features as they are, and ``bias``.
    """
    features = summaries(judged.values, judged.counts)[known]
    correct = judged.correct[known]
    mean, std = features.mean(0), features.std(0)
    scale = np.where(std > 0, std, 1.0)
    inputs = np.concatenate([(features - mean) / scale, np.ones((len(features), 1))], axis=1)
    weights = logistic_regression(inputs, correct.astype(float), np.array([_RIDGE] * len(FEATURES) + [0.0]))
    slopes = weights[:-1] / scale
    return dict(zip(FEATURES, slopes.tolist(), strict=True)) | {"bias": float(weights[-1] - slopes @ mean)}


def _logits(learned: Mapping[str, float], judged: Judged) -> np.ndarray:
    slopes = np.array([learned[name] for name in FEATURES])
    found: np.ndarray = summaries(judged.values, judged.counts) @ slopes + learned["bias"]
    return found


def _measure(
    judged: Judged, asked: Asked, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], votes: Votes,
    seed: int,
) -> dict[str, Measured]:  # fmt: skip
    def spread(values: np.ndarray, without: float) -> np.ndarray:
        found = np.full(len(votes.classes), without)
        found[judged.samples] = values
        return found

    def quality(weights: np.ndarray, order: np.ndarray) -> tuple[Quality, np.ndarray]:
        accuracy = votes.accuracy(spread(weights, 0.0))
        return Quality(
            ece=_ece(weights, judged.correct), brier=brier(weights, judged.correct),
            best_of_n=votes.best(spread(order, -np.inf)), weighted_vote=float(accuracy.mean()),
        ), accuracy  # fmt: skip

    majority = votes.accuracy(None)
    learned = votes.accuracy(spread(after[LEARNED], 0.0)) if LEARNED in after else None
    found = {}
    for how, weights in after.items():
        # The map of an aggregated score never decreases: the score itself orders, with fewer ties.
        of_score = asked.target == "solutions" and how != LEARNED
        earlier = quality(before[how], before[how]) if how in before else None
        later, accuracy = quality(weights, before[how] if of_score else weights)
        found[how] = Measured(
            before=earlier[0] if earlier else None,
            after=later,
            gain=_difference(accuracy - earlier[1], seed) if earlier else [],
            over_majority=_difference(accuracy - majority, seed),
            learned_over=_difference(learned - accuracy, seed) if learned is not None and how != LEARNED else [],
        )
    return found


def _difference(values: np.ndarray, seed: int) -> list[float]:
    resampled = means_and_bootstrap(values[:, None], NUM_BOOTSTRAP, seed)[:, 0]
    return [float(resampled[0]), *low_high(resampled)]


def _ece(values: np.ndarray, correct: np.ndarray) -> float:
    return float(calibration_error(reliability(values, correct)))
