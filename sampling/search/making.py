"""Make a policy of finished searches, with cross-validated accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sampling.search.choosing import Candidates, candidates, choose, cross_validate, first_samples_cost
from sampling.search.curves import at_budget, bins_of, cost_of, quantile_edges, within
from sampling.search.finished import FinalRule, Shared, Unit
from sampling.search.joining import join_first_samples
from sampling.search.policy import VERSION, Choice, Measured, Plan, Policy, as_config, digest_ids
from sampling.selection.folds import folds_of
from stepverify.records import InputError
from stepverify.statistics import low_high, means_and_bootstrap


def make_policy(
    shared: Shared, budgets: Sequence[float], unit: Unit, num_samples: int, num_bins: int, final_rule: FinalRule,
    held_out: Mapping[str, float] | None, num_bootstrap: int, seed: int,
) -> Policy:  # fmt: skip
    """Choose the best search for each budget and bin.

    Choices are those of all problems; beside them stands how such choices fare in cross-validation.

    Args:
        shared: the searches, and the problems that all have.
        budgets: ascending.
        unit: of the budgets.
        num_samples: first samples that predict difficulty.
        num_bins: bins of difficulty.
        final_rule: by which accuracies are compared.
        held_out: problem → pass@1 of other samples, for the oracle's bins; None takes that of best-of-N's samples.
        num_bootstrap: resamples for the intervals.
        seed: of the halves and the resamples.

    Raises:
        InputError: no search by BestOfN, unknown costs, a budget below the cost of the first samples, or problems
            without held-out samples.
    """
    first = float(first_samples_cost(shared, unit, num_samples).mean())
    if budgets[0] < first:
        raise InputError(
            f"budgets: {budgets[0]:g} {unit}: below {first:,.1f}, the mean cost of the first {num_samples} samples"
        )
    baseline = shared.best_of_n
    assert baseline is not None, "the cost of the first samples is known"
    predicted = baseline.predicted(num_samples, shared.problems, "num_samples")
    if held_out is not None and (lacking := [p for p in shared.problems if p not in held_out]):
        raise InputError(f"held_out: {len(lacking)} of {len(shared.problems)} problems have no sample: {lacking[0]}, …")
    pass_at_1 = (
        baseline.accuracy("pass@1", shared.problems)[:, 0]
        if held_out is None else np.array([held_out[problem] for problem in shared.problems])
    )  # fmt: skip
    alone = candidates(shared, unit, final_rule, 0, {})
    joined = join_first_samples(shared, num_samples, final_rule)
    after = candidates(shared, unit, final_rule, num_samples, joined)
    edges = quantile_edges(predicted, num_bins)
    bins, folds = bins_of(predicted, edges), folds_of(shared.problems, seed)
    curve = baseline.accuracy(final_rule, shared.problems), baseline.cost(unit, shared.problems)
    assert curve[1] is not None, "the cost of the first samples is known"
    plans = []
    for budget in budgets:
        measured = {
            "compute_optimal": cross_validate(after, predicted, num_bins, budget, folds),
            "fixed": cross_validate(alone, predicted, 1, budget, folds),
            "oracle": cross_validate(alone, pass_at_1, num_bins, budget, folds),
        }
        plan = Plan(budget=budget, bins=_choices(after, bins, len(edges) + 1, budget))
        _measure(plan, measured, (curve[0], curve[1]), num_bootstrap, seed)
        plans.append(plan)
    return Policy(
        version=VERSION, unit=unit, num_samples=num_samples, final_rule=final_rule, edges=edges.tolist(), plans=plans,
        num_problems=len(shared.problems), problems=digest_ids(shared.problems), law=shared.searches[0].law,
    )  # fmt: skip


def _choices(found: Candidates, bins: np.ndarray, num_bins: int, budget: float) -> list[Choice]:
    choices = []
    for number, i in enumerate(choose(found.accuracy, found.cost, bins, num_bins, budget)):
        rows = bins == number
        choices.append(
            Choice(
                search=found.names[i], strategy=as_config(found.strategies[i]), num_problems=int(rows.sum()),
                accuracy=_rounded(found.accuracy[i, rows].mean()), cost=_rounded(found.cost[i, rows].mean()),
            )
        )  # fmt: skip
    return choices


def _measure(
    plan: Plan, measured: Mapping[str, tuple[np.ndarray, np.ndarray]], curve: tuple[np.ndarray, np.ndarray],
    num_bootstrap: int, seed: int,
) -> None:  # fmt: skip
    """Add accuracies and costs to a plan, and best-of-N at its cost."""
    size = curve[0].shape[1]
    columns = np.column_stack([*(column for pair in measured.values() for column in pair), *curve])
    means = means_and_bootstrap(columns, num_bootstrap, seed)
    accuracy, costs = means[:, -2 * size : -size], means[:, -size:]
    rows = {name: (means[:, 2 * i], means[:, 2 * i + 1]) for i, name in enumerate(measured)}
    policy, cost = rows["compute_optimal"]
    if within(cost[0], costs[0]):
        rows["best_of_n"] = at_budget(cost, costs, accuracy), cost
    for name, (values, paid) in rows.items():
        gain = [] if values is policy else [policy[0] - values[0], *low_high(policy - values)]
        low, high = map(_rounded, low_high(values))
        plan.measured[name] = Measured(
            accuracy=_rounded(values[0]), low=low, high=high, cost=_rounded(paid[0]), gain=[*map(_rounded, gain)]
        )
    needed = cost_of(float(policy[0]), costs[0], accuracy[0])
    plan.best_of_n_factor = None if needed is None else _rounded(needed / cost[0])


def _rounded(value: float) -> float:
    """Round a number for people; nothing is decided by it."""
    return round(float(value), 6)
