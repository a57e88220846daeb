"""Turn a policy into sections with tables."""

from __future__ import annotations

from sampling.report.budget_sections import amount, final_label
from sampling.report.section import Section, percent, points
from sampling.search.policy import Measured, Plan, Policy

_SHOWN = {
    "compute_optimal": "compute-optimal",
    "fixed": "best fixed",
    "oracle": "oracle bins",
    "best_of_n": "best-of-N",
}


def policy_sections(found: Policy) -> list[Section]:
    """Describe the accuracies and the choices of a policy."""
    return [_measured_section(found), _choices_section(found)]


def _measured_section(found: Policy) -> Section:
    rows = []
    for plan in found.plans:
        for name, one in plan.measured.items():
            cells = [amount(one.cost), percent(one.accuracy), _span(one), *_gain(one)]
            rows.append([amount(plan.budget), _SHOWN[name], *cells, _factor(plan) if name == "best_of_n" else ""])
    title = (
        f"Two-fold cross-validation over {found.num_problems:,} problems, "
        f"final answer by the {final_label(found.final_rule)}; difficulty by {found.num_samples} first samples"
    )
    header = [
        f"budget ({found.unit})",
        "",
        "cost",
        "accuracy",
        "interval",
        "policy's gain",
        "interval",
        "its cost ÷ policy's",
    ]
    return Section(title=title, header=header, rows=rows)


def _choices_section(found: Policy) -> Section:
    borders = ["lowest", *(f"{edge:.3f}" for edge in found.edges), "highest"]
    header = ["mean score from … to", *(f"at {amount(plan.budget)}" for plan in found.plans)]
    rows = [
        [f"{borders[i]} … {borders[i + 1]}", *(_choice(plan, i) for plan in found.plans)]
        for i in range(len(found.edges) + 1)
    ]
    return Section(title="Chosen on all problems, the most difficult first", header=header, rows=rows)


def _choice(plan: Plan, number: int) -> str:
    choice = plan.bins[number]
    return choice.search + (f" (over budget: {amount(choice.cost)})" if choice.cost > plan.budget * (1 + 1e-9) else "")


def _span(one: Measured) -> str:
    return f"{100 * one.low:.1f} – {100 * one.high:.1f}"


def _gain(one: Measured) -> list[str]:
    if not one.gain:
        return ["", ""]
    difference, low, high = one.gain
    return [points(difference), f"{points(low)} to {points(high)}"]


def _factor(plan: Plan) -> str:
    """Format best-of-N's cost for the policy's accuracy, over the policy's."""
    return "–" if plan.best_of_n_factor is None else f"{plan.best_of_n_factor:.2f} ×"
