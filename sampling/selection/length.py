"""Find products of step values that count steps in place of judging them."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import numpy as np
from msgspec import Struct

from sampling.selection.aggregation import Choice
from sampling.selection.pool import Pool
from stepverify.aggregate import aggregate
from stepverify.statistics import pearson, ranks

LIMIT = -0.6
"""Of eleven reward models all five below it ordered better by their last value, and two of the six above it."""


class LengthBias(Struct):
    """Hold Spearman's coefficients with the number of steps, means within problems: of scores, and of being correct."""

    score: float
    correct: float


def find_length_bias(pool: Pool, chosen: Mapping[str, Choice]) -> dict[str, LengthBias]:
    """Find verifiers whose product of step values falls with the steps.

    Only where nobody chose the product: not where it was configured, or chosen on validation problems.

    Returns:
        verifier → coefficients, if that of the score is below ``LIMIT`` and below twice that of being correct.
    """
    asked = [name for name, choice in chosen.items() if choice["how"] == "prod" and choice["chosen_on"] == "default"]
    found = {name: _measure(pool, name) for name in asked}
    return {name: bias for name, bias in found.items() if bias and bias.score < min(LIMIT, 2 * bias.correct)}


def describe_length_bias(found: Mapping[str, LengthBias]) -> list[str]:
    """Describe each verifier's bias in one line."""
    return [
        f"{name}: the product of its step values mostly counts steps (Spearman's ρ with their number within problems "
        f"{_signed(bias.score)}, of being correct {_signed(bias.correct)}); choose another aggregation on other "
        "problems (`validation`), or give one (`aggregation`); `every_aggregation` compares them"
        for name, bias in found.items()
    ]


def _measure(pool: Pool, name: str) -> LengthBias | None:
    scores, outcomes = [], []
    for samples in pool.values():
        read = [s for s in samples if s.scores.get(name)]
        steps = ranks(np.array([s.num_steps for s in read]))
        values = np.array([aggregate(s.scores[name], "prod") for s in read])
        if (found := pearson(ranks(values), steps)) is not None:
            scores.append(found)
        if (truth := pearson(np.array([s.correct for s in read], float), steps)) is not None:
            outcomes.append(truth)
    return LengthBias(score=fmean(scores), correct=fmean(outcomes) if outcomes else 0.0) if scores else None


def _signed(number: float) -> str:
    return f"{number:+.2f}".replace("-", "−")
