"""Compute accuracy against budget from finished searches, with bootstrap intervals over problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from sampling.report.budget_summary import BinResult, BudgetPoint, Budgets, ByDifficulty, EqualBudget
from sampling.report.summary import Difference, Estimate
from sampling.search.curves import at_budget, bins_of, cost_of, quantile_edges, within
from sampling.search.finished import FinalRule, FinishedSearch, Shared, Unit, differing
from stepverify.records import InputError
from stepverify.statistics import means_and_bootstrap, spread

RULES = ("best_of_n", "weighted_vote", "majority", "oracle", "search")
"""Rules that are reported; ``search`` is the strategy's own, ``oracle`` is correct if any solution is."""
UNITS: tuple[Unit, ...] = ("tokens", "flops")
BINS = 5


Means = dict[tuple[str, str], np.ndarray]
"""(search, column) → means over problems, shape (1 + resamples, sizes); the first row is that of the problems."""


def budget_statistics(
    shared: Shared, final_rule: FinalRule, prediction_samples: int, held_out: Mapping[str, float] | None,
    num_bootstrap: int, seed: int,
) -> Budgets:  # fmt: skip
    """Compute accuracy against budget, differences at equal budgets, and results by difficulty.

    Costs and accuracies are means over the same resamples of the problems, so that in each resample a search is
    compared with best-of-N at the search's own cost there.

    Args:
        shared: the searches and the problems that all have.
        final_rule: chooses the final answer in the differences.
        prediction_samples: first samples of best-of-N whose mean score predicts difficulty.
        held_out: problem → pass@1 of other samples; None without such.
        num_bootstrap: resamples.
        seed: of the resamples.
    """
    means = _means(shared.searches, shared.problems, num_bootstrap, seed)
    baseline = shared.best_of_n
    curves: dict[str, list[BudgetPoint]] = {}
    for search in shared.searches:
        points = _points(search, shared.problems, means)
        points = points if search is baseline else points[-1:]  # of a smaller best-of-N its own N
        curves.setdefault(search.name.partition("@")[0], []).extend(points)
    for points in curves.values():
        points.sort(key=lambda point: point.tokens)
    compared = [search for search in shared.searches if search is not baseline]
    equal = {s.name: _equal_budget(s, baseline, final_rule, means) for s in compared} if baseline else {}
    found: list[ByDifficulty] = []
    bootstrap = num_bootstrap, seed
    if held_out is not None:
        found.append(_by_difficulty("held_out", shared, held_out, final_rule, bootstrap))
    if baseline and baseline.num_values(shared.problems) >= prediction_samples:
        scores = baseline.predicted(prediction_samples, shared.problems).tolist()
        by_problem = dict(zip(shared.problems, scores, strict=True))
        found.append(_by_difficulty("predicted", shared, by_problem, final_rule, bootstrap))
    return Budgets(
        num_problems=len(shared.problems), left_out=shared.left_out, final_rule=final_rule,
        best_of_n=baseline.name if baseline else "", curves=curves, equal_budget=equal, difficulty=found,
        chosen={s.name: tally for s in shared.searches if (tally := _chosen(s, shared.problems))},
        strategies={s.name: described(s.config["strategy"]) for s in shared.searches},
    )  # fmt: skip


def budget_warnings(shared: Shared, prediction_samples: int) -> list[str]:
    """Describe what makes searches less comparable.

    They differ in more than their strategies, or samples of best-of-N are missing.
    """
    first = shared.best_of_n or shared.searches[0]
    said = [text for search in shared.searches if search is not first and (text := differing(first, search))]
    for search in shared.searches:
        if search.is_best_of_n:
            most = search.sizes(shared.problems)[-1]
            if few := sum(search.results[p].sizes[-1] < most for p in shared.problems):
                said.append(
                    f"searches.{search.name}: {few} problems have fewer than {most} samples, and count with those"
                )
    if first.is_best_of_n and (kept := first.num_values(shared.problems)) < prediction_samples:
        said.append(
            f"searches.{first.name}: has scores of {kept} samples, prediction_samples is {prediction_samples}: "
            "there are no results by predicted difficulty"
        )
    return said


def described(identity: Mapping[str, object]) -> str:
    """Return a strategy as one line: ``BeamSearch(num_beams=16, width=4)``."""
    settings = {key: value for key, value in identity.items() if key != "strategy" and not isinstance(value, dict)}
    return f"{identity['strategy']}({', '.join(f'{key}={value}' for key, value in settings.items())})"


def _means(searches: Sequence[FinishedSearch], problems: Sequence[str], num_bootstrap: int, seed: int) -> Means:
    """Compute the means of all columns over problems and resamples."""
    columns: dict[tuple[str, str], np.ndarray] = {}
    for search in searches:
        for kind in RULES:
            columns[search.name, kind] = search.accuracy(kind, problems)
        costs = {
            "tokens": search.cost("tokens", problems), "flops": search.cost("flops", problems),
            "majority_flops": search.cost("flops", problems, verifier=False),
        }  # fmt: skip
        columns |= {(search.name, unit): cost for unit, cost in costs.items() if cost is not None}
    whole = np.concatenate(list(columns.values()), axis=1)
    rows = means_and_bootstrap(whole, num_bootstrap, seed)
    borders = np.cumsum([column.shape[1] for column in columns.values()])[:-1]
    return dict(zip(columns, np.split(rows, borders, axis=1), strict=True))


def _estimate(resampled: np.ndarray) -> Estimate:
    return Estimate(mean=float(resampled[0]), **spread(resampled))


def _difference(resampled: np.ndarray) -> Difference:
    return Difference(difference=float(resampled[0]), **spread(resampled))


def _points(search: FinishedSearch, problems: Sequence[str], means: Means) -> list[BudgetPoint]:
    own_rule = any("search" in search.results[p].curves for p in problems)
    kinds = [kind for kind in RULES if kind != "search" or own_rule]
    finished = sum(search.results[p].num_finished for p in problems) / len(problems)
    sizes = search.sizes(problems)

    def cost(unit: str, s: int) -> float | None:
        column = means.get((search.name, unit))
        return None if column is None else float(column[0, s])

    return [
        BudgetPoint(
            search=search.name, samples=n, tokens=float(means[search.name, "tokens"][0, s]), flops=cost("flops", s),
            majority_flops=cost("majority_flops", s), solutions=finished * (n / sizes[-1] if n else 1),
            accuracy={kind: _estimate(means[search.name, kind][:, s]) for kind in kinds},
        )
        for s, n in enumerate(sizes)
    ]  # fmt: skip


def _equal_budget(
    search: FinishedSearch, baseline: FinishedSearch, final_rule: FinalRule, means: Means
) -> list[EqualBudget]:  # fmt: skip
    """Compare a search with best-of-N and the majority vote."""
    found = []
    for unit in UNITS:
        if (search.name, unit) not in means or (baseline.name, unit) not in means:
            continue
        cost, accuracy = means[search.name, unit][:, -1], means[search.name, final_rule][:, -1]
        level: dict[str, float | None] = {}
        difference: dict[str, Difference | None] = {}
        for name, kind, column in (
            ("best_of_n", final_rule, unit),
            ("majority", "majority", "majority_flops" if unit == "flops" else unit),
        ):
            costs = means[baseline.name, column]
            there = at_budget(cost, costs, means[baseline.name, kind]) if within(cost[0], costs[0]) else None
            level[name] = None if there is None else float(there[0])
            difference[name] = None if there is None else _difference(accuracy - there)
        needed = cost_of(float(accuracy[0]), means[baseline.name, unit][0], means[baseline.name, final_rule][0])
        found.append(
            EqualBudget(
                unit=unit, cost=float(cost[0]), accuracy=float(accuracy[0]), baseline=level, difference=difference,
                factor=None if needed is None else needed / float(cost[0]),
            )
        )  # fmt: skip
    return found


def _by_difficulty(
    by: str, shared: Shared, ease: Mapping[str, float], final_rule: FinalRule, bootstrap: tuple[int, int]
) -> ByDifficulty:  # fmt: skip
    known = [problem for problem in shared.problems if problem in ease]
    if not known:
        raise InputError("held_out: has no sample of any problem of the searches; give solutions of the same problems")
    values = np.array([ease[problem] for problem in known])
    edges = quantile_edges(values, BINS)
    bins = bins_of(values, edges)
    groups = [[p for p, b in zip(known, bins, strict=True) if b == number] for number in range(len(edges) + 1)]
    searches: dict[str, list[BinResult]] = {search.name: [] for search in shared.searches}
    baseline = shared.best_of_n
    for group in groups:
        means = _means(shared.searches, group, *bootstrap)
        for search in shared.searches:
            compared = _equal_budget(search, baseline, final_rule, means) if baseline and search is not baseline else []
            searches[search.name].append(
                BinResult(
                    accuracy=_estimate(means[search.name, final_rule][:, -1]),
                    difference=compared[0].difference["best_of_n"] if compared else None,
                )
            )
    return ByDifficulty(
        by=by, edges=edges.tolist(), num_problems=[len(group) for group in groups],
        unknown=len(shared.problems) - len(known), searches=searches,
    )  # fmt: skip


def _chosen(search: FinishedSearch, problems: Sequence[str]) -> dict[str, int]:
    return dict(Counter(name for p in problems if (name := search.results[p].strategy)).most_common())
