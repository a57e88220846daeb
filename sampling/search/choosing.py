"""Choose among finished searches by budget and difficulty.

Choices are measured by cross-validation. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sampling.search.curves import at_budget, bins_of, quantile_edges
from sampling.search.finished import FinalRule, Shared, Unit
from stepverify.records import InputError


@dataclass(frozen=True, slots=True)
class Candidates:
    """Hold the searches among which a policy chooses.

    Attributes:
        names: of the searches.
        strategies: identity of each.
        accuracy: (searches, problems).
        cost: (searches, problems), with that of the first samples where ``with_samples`` was asked.
    """

    names: list[str]
    strategies: list[dict[str, Any]]
    accuracy: np.ndarray
    cost: np.ndarray


def candidates(
    shared: Shared, unit: Unit, final_rule: FinalRule, num_samples: int, joined: Mapping[str, np.ndarray]
) -> Candidates:  # fmt: skip
    """Collect the candidates: every search, and best-of-N at every N.

    Args:
        shared: the searches.
        unit: of the costs.
        final_rule: of the accuracies.
        num_samples: k, samples that a policy takes first: their cost is added to every search, and best-of-N begins
            with k samples, of which they are the first. 0 for a choice that needs no prediction.
        joined: search → accuracy with the first samples among its solutions, shape (problems,); without them where it
            is not here.

    Raises:
        InputError: costs that are unknown.
    """
    names, strategies, accuracies, costs = [], [], [], []
    ahead = first_samples_cost(shared, unit, num_samples)
    baseline = shared.best_of_n
    for search in shared.searches:
        if search.config["strategy"]["strategy"] == "ComputeOptimal":
            raise InputError(f"searches.{search.name}: was searched by a policy itself; give the strategies alone")
        accuracy, cost = search.accuracy(final_rule, shared.problems), search.cost(unit, shared.problems)
        if cost is None:
            raise InputError(f"unit: flops: unknown for searches.{search.name}; take tokens")
        if not search.is_best_of_n:
            names.append(search.name)
            strategies.append(search.config["strategy"])
            accuracies.append(joined.get(search.name, accuracy[:, 0]))
            costs.append(cost[:, 0] + ahead)
        elif search is baseline:
            sizes = search.sizes(shared.problems)
            for n in sorted({*(n for n in sizes if n >= num_samples), *([num_samples] if num_samples else [])}):
                names.append(f"{search.name.partition('@')[0]}, N = {n}")
                strategies.append({"strategy": "BestOfN", "num_samples": n})
                accuracies.append(_at_size(n, sizes, accuracy))
                costs.append(_at_size(n, sizes, cost, linear=True))
    return Candidates(names, strategies, np.array(accuracies), np.array(costs))


def first_samples_cost(shared: Shared, unit: Unit, num_samples: int) -> np.ndarray:
    """Return the cost of the first samples of each problem, shape (problems,).

    Raises:
        InputError: no search by BestOfN, one of fewer samples, or unknown costs.
    """
    baseline = shared.best_of_n
    if baseline is None:
        raise InputError("searches: expected one by BestOfN, whose first samples predict the difficulty of problems")
    if not num_samples:
        return np.zeros(len(shared.problems))
    sizes = baseline.sizes(shared.problems)
    if sizes[-1] < num_samples:
        raise InputError(f"num_samples: {num_samples}: searches.{baseline.name} has {sizes[-1]} samples of a problem")
    cost = baseline.cost(unit, shared.problems)
    if cost is None:
        raise InputError(f"unit: flops: unknown for searches.{baseline.name}; take tokens")
    return _at_size(num_samples, sizes, cost, linear=True)


def _at_size(n: int, sizes: Sequence[int], values: np.ndarray, *, linear: bool = False) -> np.ndarray:
    """Interpolate between numbers of samples: a cost linearly, an accuracy in the logarithm."""
    if linear:
        return np.array([np.interp(n, sizes, row) for row in values])
    rows = len(values)
    return at_budget(np.full(rows, float(n)), np.tile(np.array(sizes, float), (rows, 1)), values)


def choose(accuracy: np.ndarray, cost: np.ndarray, bins: np.ndarray, num_bins: int, budget: float) -> list[int]:
    """Choose a candidate for each bin: the most accurate whose mean cost in the bin fits the budget.

    Of equally accurate ones the cheapest is taken, and where none fits the cheapest of all. A bin without problems
    takes the choice for all problems.

    Args:
        accuracy: (candidates, problems).
        cost: (candidates, problems).
        bins: (problems,), from 0.
        num_bins: their number.
        budget: largest mean cost.
    """
    chosen = []
    for number in range(num_bins):
        rows = bins == number
        rows = rows if rows.any() else np.ones(len(bins), bool)
        means, costs = accuracy[:, rows].mean(1).round(12), cost[:, rows].mean(1)
        fits = costs <= budget * (1 + 1e-9)
        order = np.lexsort((costs, -means)) if fits.any() else np.argsort(costs, kind="stable")
        chosen.append(int(next(i for i in order if fits[i] or not fits.any())))
    return chosen


def cross_validate(
    found: Candidates, difficulty: np.ndarray, num_bins: int, budget: float, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Measure choices on problems on which they were not made.

    Bins and choices are those of the problems of the other fold.

    Args:
        found: candidates.
        difficulty: (problems,), known without the answers.
        num_bins: bins at quantiles of the difficulty; 1 for a single choice.
        budget: largest mean cost.
        folds: (problems,), 0 or 1.

    Returns:
        Accuracy and cost of each problem, shape (problems,).
    """
    accuracy, cost = np.zeros(len(folds)), np.zeros(len(folds))
    for fold in (0, 1):
        known, rows = folds != fold, np.flatnonzero(folds == fold)
        edges = quantile_edges(difficulty[known], num_bins)
        bins, count = bins_of(difficulty[known], edges), len(edges) + 1
        chosen = np.array(choose(found.accuracy[:, known], found.cost[:, known], bins, count, budget))
        picked = chosen[bins_of(difficulty[rows], edges)]
        accuracy[rows], cost[rows] = found.accuracy[picked, rows], found.cost[picked, rows]
    return accuracy, cost
