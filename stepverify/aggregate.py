"""Aggregate step scores into one score of the solution. Standard library only.

The rules are those of Let's Verify (product, minimum: Lightman et al. 2023, appendix F), of Snell et al. 2024 (last,
section 5.1) and of RLHFlow (mean).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

Aggregation = Literal["prod", "min", "last", "mean", "max"]


def _log_product(values: Sequence[float]) -> float:
    # In log space: products of 300 small probabilities underflow to 0.0 in double precision and would all be equal.
    return sum(math.log(v) if v > 0 else -math.inf for v in values)


_RULES: dict[Aggregation, Callable[[Sequence[float]], float]] = {
    "prod": _log_product,
    "min": min,
    "last": lambda values: values[-1],
    "mean": lambda values: math.fsum(values) / len(values),
    "max": max,
}
AGGREGATIONS: tuple[Aggregation, ...] = tuple(_RULES)


def aggregate(values: Sequence[float], how: Aggregation) -> float:
    """Aggregate the scores along a solution into its score for ranking.

    Higher is better. ``prod`` returns the *logarithm* of the product; all others keep the unit of ``values``. A
    solution without scores gets -inf: nothing ranks below it.

    Raises:
        ValueError: unknown aggregation.
    """
    if how not in _RULES:
        raise ValueError(f"aggregation: expected one of {AGGREGATIONS}, got {how!r}")
    return _RULES[how](values) if values else -math.inf


def vote_weight(values: Sequence[float], how: Aggregation) -> float:
    """Return a solution's weight in a weighted vote.

    It is the aggregated score on the scale of probabilities, >= 0.
    """
    score = aggregate(values, how)
    return math.exp(score) if how == "prod" else max(score, 0.0)


def deepest_fall(values: Sequence[float]) -> int | None:
    """Return the index of the value with the largest drop before it.

    The first of equals; None if no value drops.
    """
    falls = [before - after for before, after in pairwise(values)]
    deepest = max(falls, default=0.0)
    return falls.index(deepest) + 1 if deepest > 0 else None
