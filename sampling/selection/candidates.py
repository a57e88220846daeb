"""Hold the samples of one problem as rules see them.

Scores are those of a verifier, or simulated. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from stepverify.aggregate import Aggregation, aggregate, vote_weight

if TYPE_CHECKING:
    from sampling.selection.calibration import Calibration, How

_REPEATS = 20  # of the scores of a simulated verifier


@dataclass(slots=True)
class Sample:
    """Hold what ranking needs of one solution.

    ``predicted`` is the answer that it votes for; None is no vote. ``trimmed`` are verifiers whose value of the final
    step is left out of ``scores``. ``unread`` tells that the final step was not read in time, so that it stays.
    """

    id: str
    answer: str | None
    predicted: str | None
    correct: bool
    num_steps: int
    scores: Mapping[str, Sequence[float]]
    trimmed: Collection[str] = ()
    unread: bool = False

    def num_values(self, verifier: str) -> int:
        """Return the number of a verifier's values, with one that is left out."""
        return len(self.scores.get(verifier, ())) + (verifier in self.trimmed)


MISSING = Sample("", None, None, False, 0, {})  # a missing sample: no vote, never correct, ranked last


@dataclass(kw_only=True, slots=True)
class Candidates:
    """Hold the samples of one problem.

    Attributes:
        samples: (M,).
        classes: (M,), the class of each answer; None is no vote.
        sizes: (S,), the numbers of samples N of the curves, each from 1 to M.
        correct: (M,), whether each sample is correct.
        num_subsets: random subsets for each N over which votes are averaged.
        seed: seed of the subsets.
        base_rate: share of correct samples over all problems; simulated verifiers know it.
        calibrations: verifier → map of its aggregated scores, or its learned aggregation.
    """

    samples: Sequence[Sample]
    classes: Sequence[int | None]
    sizes: Sequence[int]
    num_subsets: int = 200
    seed: int = 0
    base_rate: float = 0.5
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    correct: list[bool] = field(init=False)
    _known: dict[Any, Any] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.correct = [sample.correct for sample in self.samples]

    @property
    def subsets(self) -> dict[str, int]:
        """Return the keyword arguments of the vote estimators."""
        return {"num_subsets": self.num_subsets, "seed": self.seed}

    def scores(self, verifier: str, how: How) -> Sequence[float]:
        """Return a verifier's score of each sample, shape (M,).

        -inf if a sample has no values.
        """
        calibration = self.calibrations.get(verifier)
        return self._each("scores", verifier, how, calibration.scores if calibration else _scores)

    def weights(self, verifier: str, how: How) -> Sequence[float]:
        """Return each sample's weight in a weighted vote.

        Shape (M,), at least 0.
        """
        calibration = self.calibrations.get(verifier)
        return self._each("weights", verifier, how, calibration.weights if calibration else _weights)

    def _each(self, kind: str, verifier: str, how: How, of: Callable[..., list[float]]) -> Sequence[float]:
        if (key := (kind, verifier, how)) not in self._known:
            self._known[key] = of([sample.scores.get(verifier, ()) for sample in self.samples], how)
        found: Sequence[float] = self._known[key]
        return found

    def simulated(self, area: float) -> list[Simulation]:
        """Return the candidates with simulated scores, several times.

        The scores are normal with variance 1, and mean d for correct samples and 0 for incorrect ones, so that a
        correct sample scores above an incorrect one with probability Phi(d / sqrt(2)), the ``area``. A vote is weighted
        with the probability of being correct given score and ``base_rate``. A real verifier with this AUROC may do
        worse: if its errors are on the samples that it scores best, if it makes the same error on samples with the same
        answer, or if its values are no probabilities. Equal seeds give equal noise, whatever the area.

        Args:
            area: AUROC within a problem, at least 0.5 and below 1.
        """
        if area not in self._known:
            correct, here = np.array(self.correct), np.array([sample is not MISSING for sample in self.samples])
            distance = NormalDist().inv_cdf(area) * math.sqrt(2)
            prior = min(max(self.base_rate, 1e-6), 1 - 1e-6)
            noise = np.random.default_rng((self.seed, 2)).normal(size=(_REPEATS, len(self.samples)))
            self._known[area] = []
            for i, scores in enumerate(noise + distance * correct):
                weights = 1 / (1 + (1 - prior) / prior * np.exp(distance * (distance / 2 - scores)))
                scores[~here] = -math.inf
                self._known[area].append(
                    Simulation(
                        samples=self.samples, classes=self.classes, sizes=self.sizes, seed=self.seed + i,
                        num_subsets=-(-self.num_subsets // _REPEATS),
                        simulated_scores=scores, simulated_weights=weights,
                    )
                )  # fmt: skip
        found: list[Simulation] = self._known[area]
        return found


def _scores(values: Sequence[Sequence[float]], how: Aggregation) -> list[float]:
    return [aggregate(one, how) for one in values]


def _weights(values: Sequence[Sequence[float]], how: Aggregation) -> list[float]:
    return [vote_weight(one, how) for one in values]


@dataclass(kw_only=True, slots=True)
class Simulation(Candidates):
    """Hold candidates with simulated scores and weights, shapes (M,)."""

    simulated_scores: np.ndarray
    simulated_weights: np.ndarray

    def scores(self, verifier: str, how: How) -> Sequence[float]:
        """Return the simulated scores, whatever the arguments."""
        return self.simulated_scores  # type: ignore[return-value]

    def weights(self, verifier: str, how: How) -> Sequence[float]:
        """Return the simulated weights, whatever the arguments."""
        return self.simulated_weights  # type: ignore[return-value]
