"""Collect what calibrations are fitted on and measured by: values, labels, votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sampling.selection.estimators import best_of_n, vote
from sampling.selection.pool import Pool
from stepverify.aggregate import AGGREGATIONS, Aggregation
from stepverify.records import InputError
from stepverify.statistics import aggregate_all


@dataclass(kw_only=True, slots=True)
class Judged:
    """Hold one verifier's values of the solutions that have some, in flat arrays.

    Attributes:
        name: of the verifier.
        values: values of all M solutions, one solution after the other.
        counts: (M,), number of values of each.
        correct: (M,), whether each solution is correct, booleans; without meaning if not ``graded``.
        folds: (M,), fold of each solution's problem.
        samples: (M,), number of the solution among all, those without values included.
        truths: as ``values``, 1 for a correct step, 0 for an incorrect one, NaN for an unknown one; None if the values
            are not of labelled steps.
        graded: whether ``correct`` is known, so that votes can be measured and a combination of values learned.
    """

    name: str
    values: np.ndarray
    counts: np.ndarray
    correct: np.ndarray
    folds: np.ndarray
    samples: np.ndarray
    truths: np.ndarray | None
    graded: bool = True

    @property
    def combines(self) -> bool:
        """Tell whether there are several values to combine, and outcomes to learn it from."""
        return self.graded and bool((self.counts > 1).any())

    @property
    def places(self) -> np.ndarray:
        """Return the position of each value in its solution, from 0."""
        starts = np.cumsum(self.counts) - self.counts
        return np.arange(len(self.values)) - np.repeat(starts, self.counts)

    def weights(self, values: np.ndarray) -> dict[Aggregation, np.ndarray]:
        """Aggregate values like these to probabilities, shape (M,) each, by every rule that makes a difference."""
        found = aggregate_all(values, self.counts)
        found["prod"] = np.exp(found["prod"])
        rules = AGGREGATIONS if (self.counts > 1).any() else ("last",)
        return {how: found[how] for how in rules}


@dataclass(kw_only=True, slots=True)
class Votes:
    """Hold what the votes of the problems need.

    Attributes:
        size: N, the number of samples that vote.
        groups: problem → numbers of its samples, of the problems with at least N.
        classes: (samples,), class of each answer within its problem; None is no vote.
        correct: (samples,).
        num_subsets: random subsets where a problem has more than N samples.
        seed: of the subsets.
    """

    size: int
    groups: Sequence[np.ndarray]
    classes: Sequence[int | None]
    correct: np.ndarray
    num_subsets: int
    seed: int

    def accuracy(self, weights: np.ndarray | None) -> np.ndarray:
        """Return the accuracy of the weighted vote, or of the majority vote, for each problem."""
        return np.array([self._vote(rows, None if weights is None else weights[rows]) for rows in self.groups])

    def _vote(self, rows: np.ndarray, weights: np.ndarray | None) -> float:
        classes, subsets = [self.classes[i] for i in rows], self.num_subsets if len(rows) > self.size else 1
        found = vote(classes, self.correct[rows], [self.size], weights, num_subsets=subsets, seed=self.seed)  # type: ignore[arg-type]
        return float(found[0])

    def best(self, scores: np.ndarray) -> float:
        """Return the mean accuracy of best-of-N."""
        return float(np.mean([best_of_n(scores[rows], self.correct[rows], [self.size])[0] for rows in self.groups]))


def judge(
    pool: Pool, name: str, truths: dict[str, list[float]] | None, folds: np.ndarray, *, graded: bool = True
) -> Judged:
    """Collect one verifier's values and labels.

    Args:
        pool: all samples.
        name: of the verifier.
        truths: solution → truth of each step, NaN where it is unknown; None if values are not of labelled steps.
        folds: (problems,), fold of each problem of the pool.
        graded: whether the solutions' outcomes are known.

    Raises:
        InputError: no values, or one kind of solutions alone.
    """
    samples = [(sample, fold) for group, fold in zip(pool.values(), folds, strict=True) for sample in group]
    rows = [i for i, (sample, _) in enumerate(samples) if sample.scores[name]]
    known = [samples[i] for i in rows]
    judged = Judged(
        name=name,
        values=np.array([value for sample, _ in known for value in sample.scores[name]], float),
        counts=np.array([len(sample.scores[name]) for sample, _ in known], int),
        correct=np.array([sample.correct for sample, _ in known], bool),
        folds=np.array([fold for _, fold in known], int),
        samples=np.array(rows, int),
        truths=None if truths is None else np.array([truth for sample, _ in known for truth in truths[sample.id]]),
        graded=graded,
    )
    _check_both(judged)
    return judged


def _check_both(judged: Judged) -> None:
    if not len(judged.counts):
        raise InputError(f"{judged.name}: no solution has a value; score them first")
    if judged.graded and (judged.correct.all() or not judged.correct.any()):
        kind = "correct" if judged.correct.all() else "incorrect"
        raise InputError(f"{judged.name}: all {len(judged.correct):,} solutions are {kind}; a map needs both kinds")
