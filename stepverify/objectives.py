"""Say how verifiers of each objective read solutions, and what their values mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal

from stepverify.aggregate import Aggregation
from stepverify.data.encode import Example, SolutionEncoder
from stepverify.records import Solution

Objective = Literal["outcome", "process", "implicit"]
OBJECTIVES: tuple[Objective, ...] = ("outcome", "process", "implicit")
Rewards = Literal["cumulative", "step"]


def encode(encoder: SolutionEncoder, objective: str, solution: Solution, per_token: bool = False) -> Example:
    """Encode a solution to score.

    Args:
        encoder: of the verifier.
        objective: of the verifier.
        solution: complete, or cut off (``finish: length``).
        per_token: score every token of it, by an outcome verifier.

    Raises:
        LeftOut: no step, or too long.
    """
    if objective == "process":
        return encoder.process(solution, None)
    return encoder.outcome(solution, None, last_only=objective == "outcome" and not per_token)


def step_values(
    rewards: Sequence[float], scaling: Sequence[float], encoder: SolutionEncoder, solution: Solution,
    how: Rewards | Literal["token"] = "cumulative",
) -> list[float]:  # fmt: skip
    """Read the values of steps from an implicit reward model's rewards.

    Args:
        rewards: of the paths up to each solution token.
        scaling: gain g and bias b of the calibration.
        encoder: of the verifier.
        solution: that was scored.
        how: ``cumulative`` is σ(g · q + b) of the reward q of the solution up to the end of each step: the probability
            that it leads to a correct answer, of which the last is the outcome reward model's value. ``step`` is
            σ(g · r) of the step's own reward r, the difference of two q: above 1/2 where the step raises that
            probability. ``token`` is the cumulative one at every token.

    Returns:
        One value in [0, 1] for each step or token.
    """
    gain, bias = scaling
    if how == "token":
        return [_sigmoid(gain * q + bias) for q in rewards]
    # The token that ends a solution is of its final step.
    lengths = (len(encoder.step(step)) for step in solution.steps[:-1])
    sums = [0.0, *(rewards[end - 1] if end else 0.0 for end in accumulate(lengths)), rewards[-1]]
    if how == "cumulative":
        return [_sigmoid(gain * q + bias) for q in sums[1:]]
    return [_sigmoid(gain * (after - before)) for before, after in pairwise(sums)]


def default_aggregation(facts: Mapping[str, Any], rewards: Rewards = "cumulative") -> Aggregation:
    """Return how the values along a solution become its score, unless a user says so.

    The last of an outcome verifier, and of an implicit reward model, whose last value is that of the solution; of its
    steps' own rewards the minimum. The product of a process reward model (Lightman et al. 2023, section 2.6).
    """
    if facts["objective"] == "implicit" and rewards == "step":
        return "min"
    return "prod" if facts["objective"] == "process" else "last"


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
