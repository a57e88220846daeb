"""Say how verifiers of each objective read solutions, and what their values mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal, Self

from stepverify.aggregate import Aggregation
from stepverify.data.encode import Example, SolutionEncoder
from stepverify.records import InputError, Solution

Objective = Literal["outcome", "process", "implicit"]
OBJECTIVES: tuple[Objective, ...] = ("outcome", "process", "implicit")
Rewards = Literal["cumulative", "step"]


@dataclass(frozen=True)
class Reading:
    """Describe how a verifier reads solutions.

    An implicit reward model computes the reward q of a solution up to each of its tokens (Yuan et al. 2024, section 3).
    With gain g and bias b of the calibration its values are

    - ``cumulative``: σ(g · q + b) at the end of each step, the probability that the solution so far leads to a correct
      answer. The last one is the outcome reward model's value of the whole solution, its end included.
    - ``step``: σ(g · r) of the step's own reward r, the difference of two q: above 1/2 where the step raises that
      probability. The paper's process rewards are r.

    Attributes:
        objective: of the verifier.
        rewards: values of an implicit reward model.
        scaling: gain and bias of its calibration.
        per_token: an outcome verifier was trained at every token.
    """

    objective: Objective
    rewards: Rewards = "cumulative"
    scaling: tuple[float, float] = (1.0, 0.0)
    per_token: bool = True

    @classmethod
    def of(cls, facts: Mapping[str, Any], path: str, rewards: Rewards = "cumulative") -> Self:
        """Read it from the metadata of an export.

        Raises:
            InputError: ``rewards`` of a verifier that has none, or other than those that its calibration maps.
        """
        if rewards != "cumulative" and facts.get("calibration") is not None:
            raise InputError(
                f"{path}: rewards: {rewards}: its calibration was fitted on cumulative ones; set raw: true"
            )
        if rewards != "cumulative" and facts["objective"] != "implicit":
            raise InputError(f"{path}: rewards: {rewards}: it is no implicit reward model, which alone has them")
        # Older exports lack per_token; most were trained so.
        return cls(
            facts["objective"], rewards, tuple(facts.get("scaling", (1.0, 0.0))), bool(facts.get("per_token", True))
        )

    @property
    def takes_prefixes(self) -> bool:
        """Tell whether values of prefixes mean something."""
        return self.objective != "outcome" or self.per_token

    @property
    def aggregation(self) -> Aggregation:
        """Return how the values along a solution become its score, unless a user says so.

        The product of a process reward model (Lightman et al. 2023, section 2.6); otherwise the last value, which is
        that of the solution; of steps' own rewards the minimum, as none of them is.
        """
        if self.objective == "process":
            return "prod"
        return "min" if self.rewards == "step" else "last"

    def encode(self, encoder: SolutionEncoder, solution: Solution, per_token: bool = False) -> Example:
        """Encode a solution to score, complete or cut off (``finish: length``).

        Raises:
            LeftOut: no step, or too long.
        """
        if self.objective == "process":
            return encoder.process(solution, None)
        return encoder.outcome(solution, None, last_only=self.objective == "outcome" and not per_token)

    def values(
        self, along: Sequence[float], encoder: SolutionEncoder, solution: Solution, per_token: bool = False
    ) -> list[float]:
        """Convert a model's scores along an encoded solution to values in [0, 1].

        Returns:
            One for each step, each token (``per_token``) or the final one.
        """
        if self.objective != "implicit":
            return [*along]
        gain, bias = self.scaling
        if per_token:
            return [_sigmoid(gain * q + bias) for q in along]
        # The token that ends a solution is of its final step.
        ends = accumulate(len(encoder.step(step)) for step in solution.steps[:-1])
        sums = [0.0, *(along[end - 1] if end else 0.0 for end in ends), along[-1]]
        if self.rewards == "cumulative":
            return [_sigmoid(gain * q + bias) for q in sums[1:]]
        return [_sigmoid(gain * (after - before)) for before, after in pairwise(sums)]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
