"""Define the rules that choose among the samples of one problem.

A rule gives a curve over N, and its choice among all samples. Pure. A rule of your own is a class with a name and two
methods, given in ``rules`` of ``sampling rank``::

    class Longest(BestBy):
        name = "longest"

        def order(self, candidates):
            return [sample.num_steps for sample in candidates.samples]

    rules:
      - class_path: Majority
      - class_path: my_rules.Longest

A rule that chooses the sample with the highest value is a :class:`BestBy`, one that lets the samples vote is a
:class:`Vote`, and one that uses a verifier's scores is also a :class:`VerifierRule`.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sampling.selection.calibration import How
from sampling.selection.candidates import Candidates
from sampling.selection.estimators import best_of_n, elect, pass_at_k, top_k_votes, vote
from stepverify.aggregate import Aggregation
from stepverify.records import InputError


class Rule(ABC):
    """Choose among the samples of a problem.

    Attributes:
        name: name of the rule in records and reports.
        chooses: whether it can choose one of all samples; otherwise it has only a curve.
    """

    name: str
    chooses: ClassVar[bool] = True

    @abstractmethod
    def curve(self, candidates: Candidates) -> np.ndarray:
        """Estimate the probability to be correct at each N.

        Returns:
            (S,), in [0, 1], for each N of ``candidates.sizes``.
        """

    def choice(self, candidates: Candidates) -> int | None:
        """Choose a sample by index, the first of equals; None for none."""
        raise NotImplementedError(f"{type(self).__name__}.choice; set chooses = False for a rule without")

    def order(self, candidates: Candidates) -> Sequence[float] | None:
        """Return the values that order the samples, shape (M,), or None.

        Their AUROC is reported; None stands for no order.
        """
        return None

    def identity(self) -> dict[str, Any]:
        """Return the class of the rule and its settings, for the manifest."""
        made = {key: value for key, value in vars(self).items() if value is not None}
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}"} | (
            {"init_args": made} if made else {}
        )


class SampleAccuracy(Rule):
    """Take any sample: the share of correct ones (pass@1)."""

    name = "pass@1"

    def curve(self, candidates: Candidates) -> np.ndarray:
        """Return the share of correct samples at every N."""
        return np.full(len(candidates.sizes), sum(candidates.correct) / len(candidates.correct))

    def choice(self, candidates: Candidates) -> int:
        """Choose the first sample."""
        return 0


class Oracle(Rule):
    """Take a correct sample if there is one: pass@N.

    Chen et al. 2021, section 2.1.
    """

    name = "oracle"

    def curve(self, candidates: Candidates) -> np.ndarray:
        """Compute pass@N exactly."""
        total, correct = len(candidates.correct), sum(candidates.correct)
        return np.array([pass_at_k(total, correct, n) for n in candidates.sizes])

    def choice(self, candidates: Candidates) -> int | None:
        """Choose the first correct sample."""
        return candidates.correct.index(True) if any(candidates.correct) else None


class BestBy(Rule):
    """Take the sample with the highest value."""

    @abstractmethod
    def order(self, candidates: Candidates) -> Sequence[float]:
        """Return a value for each sample, shape (M,); -inf is allowed."""

    def curve(self, candidates: Candidates) -> np.ndarray:
        """Compute the accuracy exactly; equal values have equal probability."""
        return best_of_n(self.order(candidates), candidates.correct, candidates.sizes)

    def choice(self, candidates: Candidates) -> int:
        """Choose the first sample with the highest value."""
        values = self.order(candidates)
        return max(range(len(values)), key=values.__getitem__)


class Shortest(BestBy):
    """Take the sample with the fewest steps.

    This needs no verifier: a baseline for verifiers that prefer short solutions.
    """

    name = "shortest"

    def order(self, candidates: Candidates) -> list[float]:
        """Return the negative numbers of steps; -inf for no steps."""
        return [-sample.num_steps if sample.num_steps else -math.inf for sample in candidates.samples]


class Vote(Rule):
    """Take the answer with the largest sum of weights."""

    def weights(self, candidates: Candidates) -> Sequence[float] | None:
        """Return vote weights, shape (M,), at least 0; None for equal weights."""
        return None

    def preference(self, candidates: Candidates) -> Sequence[float]:
        """Return values that choose among samples with the winning answer.

        Shape (M,); the highest wins.
        """
        return [1.0] * len(candidates.samples)

    def curve(self, candidates: Candidates) -> np.ndarray:
        """Estimate the accuracy over random subsets; ties are split evenly."""
        weights = self.weights(candidates)
        return vote(candidates.classes, candidates.correct, candidates.sizes, weights, **candidates.subsets)

    def choice(self, candidates: Candidates) -> int | None:
        """Choose the preferred sample of the winning answer; None without votes."""
        weights = self.weights(candidates)
        equal = [1.0] * len(candidates.samples)
        return elect(candidates.classes, equal if weights is None else weights, self.preference(candidates))


class Majority(Vote):
    """Take the most frequent answer (self-consistency: Wang et al. 2022)."""

    name = "majority"

    def order(self, candidates: Candidates) -> list[int]:
        """Return the number of votes for each sample's answer."""
        votes = Counter(c for c in candidates.classes if c is not None)
        return [0 if c is None else votes[c] for c in candidates.classes]


class VerifierRule(Rule):
    """Use a verifier's scores of solutions.

    Args:
        verifier: name of the scores; None makes it a rule of every verifier.
        aggregation: how the values along a solution become its score; None takes what the stage uses for the verifier.
    """

    kind: str

    def __init__(self, verifier: str | None = None, aggregation: Aggregation | None = None) -> None:
        self.verifier = verifier
        self.aggregation: How | None = aggregation

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return verifier and rule, such as ``prm/best_of_n``."""
        return f"{self.verifier}/{self.kind}"

    def bind(self, verifier: str, aggregation: How) -> VerifierRule:
        """Return the rule for one verifier and one aggregation."""
        bound = copy.copy(self)
        bound.verifier, bound.aggregation = verifier, aggregation
        return bound

    def scores(self, candidates: Candidates) -> Sequence[float]:
        """Return the verifier's score of each sample, shape (M,)."""
        assert self.verifier is not None
        assert self.aggregation is not None
        return candidates.scores(self.verifier, self.aggregation)


class BestOfN(VerifierRule, BestBy):
    """Take the sample with the highest score (best-of-N)."""

    kind = "best_of_n"

    def order(self, candidates: Candidates) -> Sequence[float]:
        """Return the verifier's scores."""
        return self.scores(candidates)


class WeightedVote(VerifierRule, Vote):
    """Take the answer with the largest sum of scores.

    Weighted majority vote (Li et al. 2022, section 2.3).
    """

    kind = "weighted_vote"

    def weights(self, candidates: Candidates) -> Sequence[float]:
        """Return the scores as probabilities."""
        assert self.verifier is not None
        assert self.aggregation is not None
        return candidates.weights(self.verifier, self.aggregation)

    def preference(self, candidates: Candidates) -> Sequence[float]:
        """Return the scores."""
        return self.scores(candidates)


class TopKVote(VerifierRule):
    """Take the most frequent answer among the k best-scored samples.

    Cobbe et al. 2021, section 4.

    Args:
        k: number of samples that vote, at least 1.
        verifier: as for every :class:`VerifierRule`.
        aggregation: as for every :class:`VerifierRule`.
    """

    def __init__(self, k: int, verifier: str | None = None, aggregation: Aggregation | None = None) -> None:
        if k < 1:
            raise InputError(f"TopKVote.k: expected 1 or more, got {k}")
        super().__init__(verifier, aggregation)
        self.k = k

    @property
    def kind(self) -> str:  # type: ignore[override]
        """Return the name of the rule, such as ``top_3``."""
        return f"top_{self.k}"

    def curve(self, candidates: Candidates) -> np.ndarray:
        """Estimate the accuracy over random subsets; exact for k = 1."""
        scores = self.scores(candidates)
        sizes, subsets = candidates.sizes, candidates.subsets
        return top_k_votes(scores, candidates.classes, candidates.correct, sizes, [self.k], **subsets)[0]

    def choice(self, candidates: Candidates) -> int | None:
        """Choose the best-scored sample of the winning answer."""
        scores = self.scores(candidates)
        best = {*sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[: self.k]}
        voting = [c if i in best else None for i, c in enumerate(candidates.classes)]
        return elect(voting, [1.0] * len(scores), scores)


class Simulated(Rule):
    """Apply a rule to a simulated verifier of a given AUROC.

    See :meth:`Candidates.simulated`. It has only a curve.

    Args:
        area: AUROC within a problem, at least 0.5 and below 1.
        rule: the rule that uses the simulated scores.
    """

    chooses = False

    def __init__(self, area: float, rule: VerifierRule) -> None:
        if not 0.5 <= area < 1:
            raise InputError(f"Simulated.area: expected 0.5 or more and less than 1, got {area}")
        self.area, self.rule = area, rule
        self.name = f"simulated_{area:g}/{rule.kind}"

    def curve(self, candidates: Candidates) -> np.ndarray:
        """Average the curves over repeated simulated scores."""
        rule = self.rule.bind("simulated", "last")
        repeats = candidates.simulated(self.area)
        return sum((rule.curve(one) / len(repeats) for one in repeats), np.zeros(len(candidates.sizes)))

    def identity(self) -> dict[str, Any]:
        """Return the class, the AUROC and the identity of the inner rule."""
        return super().identity() | {"init_args": {"area": self.area, "rule": self.rule.identity()}}
