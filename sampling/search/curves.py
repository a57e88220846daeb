"""Interpolate curves of accuracy against cost, and divide problems into bins. Pure."""

from __future__ import annotations

import numpy as np


def at_budget(budget: np.ndarray, cost: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Interpolate the accuracy of a curve at a budget.

    Linearly in the logarithm of the cost; beyond its ends the curve is constant.

    Args:
        budget: (R,).
        cost: (R, S), ascending.
        accuracy: (R, S).

    Returns:
        (R,).
    """
    if cost.shape[1] == 1:
        return accuracy[:, 0]
    rows = np.arange(len(budget))
    place = np.clip((cost <= budget[:, None]).sum(1) - 1, 0, cost.shape[1] - 2)
    low, high = cost[rows, place], cost[rows, place + 1]
    tiny = np.finfo(float).tiny
    whole = np.log(np.maximum(high, tiny) / np.maximum(low, tiny))
    part = np.log(np.maximum(budget, tiny) / np.maximum(low, tiny))
    share = np.clip(np.divide(part, whole, out=np.ones(len(rows)), where=whole > 0), 0, 1)
    found: np.ndarray = (1 - share) * accuracy[rows, place] + share * accuracy[rows, place + 1]
    return found


def cost_of(level: float, cost: np.ndarray, accuracy: np.ndarray) -> float | None:
    """Return the cost at which a curve first reaches an accuracy.

    None if it never does, or begins above it.

    Args:
        level: the accuracy.
        cost: (S,), ascending.
        accuracy: (S,).
    """
    above = np.flatnonzero(accuracy >= level)
    if not len(above) or accuracy[0] > level:
        return None
    i = int(above[0])
    if accuracy[i] == level or i == 0:
        return float(cost[i])
    share = (level - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1])
    return float(cost[i - 1] * (cost[i] / cost[i - 1]) ** share)


def within(budget: float, cost: np.ndarray) -> bool:
    """Tell whether a budget lies between the ends of a curve.

    Args:
        budget: but for rounding.
        cost: (S,), ascending.
    """
    return bool(cost[0] * (1 - 1e-9) <= budget <= cost[-1] * (1 + 1e-9))


def quantile_edges(values: np.ndarray, num_bins: int) -> np.ndarray:
    """Return the inner edges of bins of about equal size.

    No bin is empty, and equal values are in one bin: of all borders between different values, those next to the
    quantiles are edges. There are fewer where many values are equal.
    """
    distinct, counts = np.unique(values, return_counts=True)
    borders, wanted = np.cumsum(counts)[:-1], len(values) * np.arange(1, num_bins) / num_bins
    if not len(borders):
        return distinct[1:]
    return distinct[1:][np.unique(np.abs(borders[:, None] - wanted).argmin(axis=0))]


def bins_of(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the bin of each value, from 0.

    A value on an edge is in the bin above it.
    """
    return np.searchsorted(edges, values, side="right")
