"""Turn accuracy against budget into sections with tables."""

from __future__ import annotations

from sampling.report.accuracy import kind_label
from sampling.report.budget import RULES
from sampling.report.budget_summary import BinResult, BudgetPoint, Budgets, ByDifficulty, EqualBudget
from sampling.report.section import INTERVALS, Section, Uncertainty, clear, count, percent, points
from sampling.report.summary import Difference

_LABELS = {"best_of_n": "best score", "oracle": "oracle", "search": "its own rule"}


def budget_sections(found: Budgets, shown: Uncertainty = INTERVALS) -> list[Section]:
    """Return the sections of searches, in order."""
    parts = [budget_section(found, shown)]
    if found.equal_budget:
        parts.append(equal_budget_section(found, shown))
    parts += [_difficulty_section(found, one) for one in found.difficulty]
    if found.chosen:
        parts.append(_chosen_section(found))
    rows = [[name, text] for name, text in found.strategies.items()]
    return [*parts, Section(title="Strategies", header=["search", "strategy"], rows=rows)]


def budget_section(found: Budgets, shown: Uncertainty = INTERVALS) -> Section:
    """Describe costs and accuracies of every search."""
    listed = [point for curve in found.curves.values() for point in curve]
    kinds = [kind for kind in RULES if kind != found.final_rule and any(kind in point.accuracy for point in listed)]
    rows: list[list[str]] = []
    dots = []
    for point in listed:
        final = point.accuracy[found.final_rule]
        others = [percent(one.mean) if (one := point.accuracy.get(kind)) else "" for kind in kinds]
        costs = [amount(point.tokens), amount(point.flops), f"{point.solutions:.1f}"]
        rows.append([_point_label(point, found.best_of_n), *costs, percent(final.mean), shown.share(final), *others])
        dots.append(final)
    note = (
        f"Share of {found.num_problems:,} problems solved, and what a problem costs on average: every sampled token "
        "counts, also of what was pruned, merged or looked ahead; FLOPs are 2 · parameters · tokens of generator and "
        "verifier, without tokens that a cache holds. The final answer of every search is chosen in the same way, by "
        f"the {final_label(found.final_rule)}; the other rules choose among the same solutions. Best-of-N at fewer "
        "samples is the expectation over random subsets, at their share of the measured cost (a lower bound of the "
        "FLOPs where samples share what the verifier reads); its majority vote needs no verifier, whose FLOPs do not "
        f"count for it in figure and differences. The {shown.words} are over bootstrap resamples of the problems."
    )
    if any(point.flops is None for point in listed):
        unknown = dict.fromkeys(point.search for point in listed if point.flops is None)
        note += (
            f" FLOPs are unknown, and left out, of {', '.join(unknown)}: a model's number of parameters is not known."
        )
    if found.left_out:
        left = ", ".join(f"{name} {number:,}" for name, number in found.left_out.items())
        note += f" Problems that not all searches have, or that have no reference answer, are left out: {left}."
    if not found.best_of_n:
        note += " Without a best-of-N search there is nothing to compare at equal budgets."
    header = [
        "search",
        "tokens",
        "FLOPs",
        "finished",
        final_label(found.final_rule),
        shown.header,
        *map(final_label, kinds),
    ]
    title = "Accuracy against budget"
    return Section(title=title, note=note, header=header, rows=rows, figure="budget", dots=dots, name="budget")


def equal_budget_section(found: Budgets, shown: Uncertainty = INTERVALS) -> Section:
    """Describe the differences from the baselines at equal cost."""
    rows = [
        [name, {"tokens": "tokens", "flops": "FLOPs"}[one.unit], amount(one.cost), percent(one.accuracy)]
        + [cell for kind in ("best_of_n", "majority") for cell in _versus(one, kind, shown)]
        + ["–" if one.factor is None else f"{one.factor:.2f} ×"]
        for name, compared in found.equal_budget.items()
        for one in compared
    ]
    note = (
        f"Each search by the {final_label(found.final_rule)} against best-of-N ({found.best_of_n}, same rule) and the "
        "majority vote of the same samples, whose curves are interpolated at the search's own mean cost, linearly in "
        f"the logarithm of the cost. Differences in percentage points, paired over problems, with {shown.words}. "
        "Last, the cost at which best-of-N is first as accurate, in units of the search's. A dash: beyond the curve; "
        "give a best-of-N search with more samples."
    )
    header = ["search", "equal", "cost", "accuracy", "best-of-N", "over best-of-N", shown.header]
    header += ["majority", "over majority", shown.header, "best-of-N needs"]
    return Section(title="At equal budgets", note=note, header=header, rows=rows, name="equal_budgets")


def _versus(one: EqualBudget, kind: str, shown: Uncertainty) -> list[str]:
    return [percent(one.baseline[kind]), *_paired(one.difference[kind], shown)]


def _paired(difference: Difference | None, shown: Uncertainty) -> list[str]:
    if difference is None:
        return ["–", ""]
    return [points(difference.difference), shown.difference(difference)]


def _difficulty_section(found: Budgets, one: ByDifficulty) -> Section:
    last = len(one.num_problems) - 1
    names = {0: "most difficult", last: "easiest"} if last else {0: "all"}
    header = ["search", *(names.get(i, str(i + 1)) for i in range(last + 1))]
    rows = [["problems", *map(count, one.num_problems)]]
    rows += [[name, *map(_bin_cell, results)] for name, results in one.searches.items()]
    by_held_out = one.by == "held_out"
    note = (
        f"Share of problems solved by the {final_label(found.final_rule)}; in brackets the difference from best-of-N "
        "at the same number of tokens in the bin, in percentage points; * marks those whose 95\u00a0% interval is "
        "beyond zero (all intervals are in summary.json). Bins of about equal size, by "
    )
    note += "pass@1 of held-out samples" if by_held_out else f"the mean score of the first samples of {found.best_of_n}"
    note += f", with edges at {', '.join(f'{edge:.3f}' for edge in one.edges) or '–'}."
    if last < 4:
        note += " There are fewer than five, since many problems are equally difficult."
    if one.unknown:
        note += f" {one.unknown:,} problems without held-out samples are left out."
    title = "By difficulty: held-out samples" if by_held_out else "By difficulty: the verifier's prediction"
    return Section(title=title, note=note, header=header, rows=rows, name=f"difficulty_{one.by}")


def _bin_cell(result: BinResult) -> str:
    if result.difference is None:
        return percent(result.accuracy.mean)
    return f"{percent(result.accuracy.mean)} ({points(result.difference.difference)}{'*' * clear(result.difference)})"


def _chosen_section(found: Budgets) -> Section:
    names = list(dict.fromkeys(name for tally in found.chosen.values() for name in tally))
    rows = [[search, *(count(tally.get(name, 0)) for name in names)] for search, tally in found.chosen.items()]
    note = "For how many problems a policy chose each strategy, by the predicted difficulty of the problem."
    return Section(
        title="What the policy chose", note=note, header=["search", *names], rows=rows, name="policy_choices"
    )


def _point_label(point: BudgetPoint, baseline: str) -> str:
    """Return a search's name; of the baseline that before ``@``, with N."""
    return f"{point.search.partition('@')[0]}, N = {point.samples}" if point.search == baseline else point.search


def amount(value: float | None) -> str:
    """Format a number of tokens or FLOPs; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.2e}" if value >= 1e7 else f"{value:,.0f}"


def final_label(kind: str) -> str:
    """Return how a final answer is chosen, in words."""
    return _LABELS.get(kind) or kind_label(kind)
