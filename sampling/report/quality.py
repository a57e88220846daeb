"""Measure the quality of verifier values, for steps and for solutions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np

from sampling.report.collect import Collected, Solutions, Steps
from sampling.report.summary import (
    Difference,
    Discrimination,
    Interval,
    LengthCorrelations,
    MinimumPosition,
    ScoreQuality,
    StepOrder,
    StepQuality,
    VerifierSolutions,
    VerifierSteps,
)
from stepverify.aggregate import AGGREGATIONS
from stepverify.statistics import (
    aggregate_all,
    auroc,
    auroc_per_problem,
    brier,
    calibration_error,
    f1,
    mean,
    pearson,
    ranks,
    reliability,
    resampled_auroc,
    resamples,
    spread,
)


def step_statistics(collected: Collected, num_bootstrap: int, seed: int) -> dict[str, VerifierSteps]:
    """Measure each verifier's step values, compared with position and length alone.

    Args:
        collected: collected values; verifiers without step values are left out.
        num_bootstrap: number of resamples for the intervals of :func:`step_order_statistics`.
        seed: seed of the resamples.
    """
    found = {}
    orders = step_order_statistics(collected, num_bootstrap, seed)
    for name, order in orders.items():
        steps = collected.verifiers[name].steps
        by_subset = {subset: _steps(steps, rows) for subset, rows in parts(steps, collected.subsets)}
        bins = reliability(np.frombuffer(steps.values), np.frombuffer(steps.correct) == 1)
        whole = asdict(by_subset.pop(""))
        found[name] = VerifierSteps(**whole, subsets=by_subset, reliability=bins, order=order)
    return found


def parts(of: Any, subsets: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and rows of each subset, then of all, named ''.

    Only the latter if there is one subset.

    Args:
        of: flat arrays, including ``subsets``.
        subsets: names of the subsets.
    """
    numbers = np.frombuffer(of.subsets).astype(int)
    if len(subsets) > 1:
        for number in np.unique(numbers):
            yield subsets[number] or "(none)", numbers == number
    yield "", np.ones(len(numbers), bool)


def _steps(steps: Steps, rows: np.ndarray) -> StepQuality:
    values, correct = np.frombuffer(steps.values)[rows], np.frombuffer(steps.correct)[rows] == 1
    return StepQuality(
        num_steps=len(values),
        base_rate=float(correct.mean()),
        accuracy=float(((values >= 0.5) == correct).mean()),
        auroc=auroc(values, correct),
        # Baselines without a verifier: the later step, or the longer one, is the incorrect one.
        auroc_position=auroc(-np.frombuffer(steps.places)[rows], correct),
        auroc_length=auroc(-np.frombuffer(steps.lengths)[rows], correct),
        f1_error=f1(values < 0.5, ~correct),
        f1_all_incorrect=f1(np.ones(len(correct), bool), ~correct),
        ece=calibration_error(reliability(values, correct)),
    )


def step_order_statistics(collected: Collected, num_bootstrap: int, seed: int) -> dict[str, StepOrder]:
    """Compute the AUROC interval and paired differences of each verifier's step values.

    Differences are from ``position`` and ``length`` (baselines without a model that score earlier, or shorter, steps
    higher) and from every verifier named before it that scored the same steps. Intervals are over resamples of the
    problems, since the steps of a problem, and of its solutions, are correlated. A difference is taken within each
    resample. There is no interval and no difference if all steps are correct or all are incorrect.

    Args:
        collected: collected values; verifiers without step values are left out.
        num_bootstrap: number of bootstrap resamples of the problems.
        seed: seed of the resamples.
    """
    judged = {name: one.steps for name, one in collected.verifiers.items() if one.of_steps}
    areas: dict[str, np.ndarray] = {}
    found: dict[str, StepOrder] = {}
    for name, steps in judged.items():
        against = {other: area for other, area in areas.items() if _same_steps(judged[other], steps)}
        areas[name], *alone = _areas(steps, collected.num_problems, num_bootstrap, seed)
        against = dict(zip(("position", "length"), alone, strict=True)) | against
        known = not np.isnan(areas[name][0])
        found[name] = StepOrder(
            interval=Interval(**spread(areas[name])) if known else None,
            above={key: _difference(areas[name] - area) for key, area in against.items()} if known else {},
        )
    return found


def _areas(steps: Steps, num_problems: int, num_bootstrap: int, seed: int) -> np.ndarray:
    """Compute the AUROC of values, places and lengths, and of resamples.

    Shape (3, 1 + num_bootstrap): first of the steps themselves, then of their resamples.
    """
    values, correct, places, lengths, problems = map(
        np.frombuffer, (steps.values, steps.correct, steps.places, steps.lengths, steps.problems)
    )
    correct, problems = correct == 1, problems.astype(int)

    def resampled(counts: np.ndarray) -> list[np.ndarray]:
        return [resampled_auroc(order, correct, problems, counts) for order in (values, -places, -lengths)]

    itself = np.ones((1, num_problems), int)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # numpy releases the interpreter lock
        return np.hstack(
            list(pool.map(resampled, chain([itself], resamples(num_problems, num_bootstrap, seed, 4 * len(values)))))
        )


def _same_steps(a: Steps, b: Steps) -> bool:
    return all(getattr(a, key) == getattr(b, key) for key in ("problems", "places", "lengths", "correct"))


def _difference(areas: np.ndarray) -> Difference:
    return Difference(difference=float(areas[0]), **spread(areas))


def solution_statistics(collected: Collected, used: Mapping[str, str]) -> dict[str, VerifierSolutions]:
    """Measure each verifier's scores of graded solutions.

    Args:
        collected: collected values; verifiers without graded solutions are left out.
        used: verifier → aggregation, for the reliability of its scores; ``last`` if it is unknown.
    """
    return {
        name: _solutions(judged.solutions, used.get(name, "last"))
        for name, judged in collected.verifiers.items()
        if judged.solutions.correct
    }


def _solutions(c: Solutions, used: str) -> VerifierSolutions:
    correct = np.frombuffer(c.correct) == 1
    lengths = np.frombuffer(c.num_steps), np.frombuffer(c.num_tokens)
    counts, problems = np.frombuffer(c.counts).astype(int), np.frombuffer(c.problems)
    many = bool((counts > 1).any())
    scores = aggregate_all(np.frombuffer(c.values), counts)
    by_how: dict[str, ScoreQuality] = {}
    for how in AGGREGATIONS if many else ("last",):
        probability = _probability(scores[how], how)
        by_how[how] = ScoreQuality(
            auroc=auroc(scores[how], correct), auroc_per_problem=auroc_per_problem(scores[how], correct, problems),
            brier=brier(probability, correct), ece=calibration_error(reliability(probability, correct)),
            **_length_correlations(probability, scores[how], *lengths),
        )  # fmt: skip
    used = used if used in by_how else "last"
    return VerifierSolutions(
        num_solutions=len(correct),
        base_rate=float(correct.mean()),
        used=used,
        aggregations=by_how,
        shortest=Discrimination(
            auroc=auroc(-lengths[0], correct), auroc_per_problem=auroc_per_problem(-lengths[0], correct, problems)
        ),
        truth=LengthCorrelations(**_length_correlations(correct.astype(float), correct, *lengths)),
        minimum_position=_minimum_position(np.frombuffer(c.values), counts) if many else None,
        reliability=reliability(_probability(scores[used], used), correct),
    )


def _minimum_position(values: np.ndarray, counts: np.ndarray) -> MinimumPosition:
    """Find the place of the lowest value, from 0 to 1.

    0 is the first step or token, 1 the final one; the first of equal values counts.
    """
    starts = np.cumsum(counts) - counts
    lowest = np.repeat(np.minimum.reduceat(values, starts), counts)
    places = np.where(values == lowest, np.arange(len(values)) - np.repeat(starts, counts), len(values))
    first = np.minimum.reduceat(places, starts)[counts > 1] / (counts[counts > 1] - 1)
    return MinimumPosition(mean=mean(first), at_first=mean(first == 0), at_last=mean(first == 1))


def _probability(scores: np.ndarray, how: str) -> np.ndarray:
    # The aggregated score of `prod` is the logarithm of the product.
    return np.exp(scores) if how == "prod" else scores


def _length_correlations(
    probability: np.ndarray, scores: np.ndarray, num_steps: np.ndarray, num_tokens: np.ndarray
) -> dict[str, float | None]:
    found = {}
    for unit, length in (("steps", num_steps), ("tokens", num_tokens)):
        known = ~np.isnan(length)
        found[f"spearman_{unit}"] = pearson(ranks(scores[known]), ranks(length[known]))
        found[f"pearson_{unit}"] = pearson(probability[known], length[known])
    return found
