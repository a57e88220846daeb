"""Turn the summary of a report into sections with tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sampling.report.accuracy import BASELINE, kind_label, rule_label, split_rule
from sampling.report.budget_sections import budget_sections
from sampling.report.first_error_sections import first_error_section, lowest_section
from sampling.report.section import INTERVALS, Section, Uncertainty, clear, count, decimal, percent, points
from sampling.report.summary import (
    Accuracy,
    Compared,
    Difference,
    Estimate,
    Interval,
    Summary,
    VerifierSolutions,
    VerifierSteps,
)

_MOST_COMPARED = 8  # rules in one table of differences
_ORIGINS = {"validation": "validation problems", "configured": "the configuration", "calibration": "the calibration",
            "default": "default"}  # fmt: skip


def sections(summary: Summary, shown: Uncertainty = INTERVALS) -> list[Section]:
    """Return the sections of a report, in order.

    Percentages are of problems, steps or solutions; differences are in percentage points.
    """
    parts = []
    if summary.warnings:
        parts.append(Section(title="Warnings", header=[""], rows=[[line] for line in summary.warnings]))
    if summary.accuracy:
        parts += [accuracy_section(summary.accuracy, shown), _curves_section(summary.accuracy)]
        parts += between_sections(summary.accuracy, shown)
    if summary.searches:
        parts += budget_sections(summary.searches, shown)
    if summary.first_errors:
        parts += [first_error_section(summary.first_errors, shown), lowest_section(summary.first_errors)]
    if summary.accuracy and summary.accuracy.aggregation:
        parts.append(_aggregation_section(summary.accuracy))
    if summary.accuracy and summary.accuracy.every_aggregation:
        parts.append(_comparison_section(summary.accuracy, shown))
    if summary.solutions:
        parts.append(_solutions_section(summary.solutions))
    if summary.steps:
        parts.append(steps_section(summary.steps, shown))
        if any(found.subsets for found in summary.steps.values()):
            parts.append(_subsets_section(summary.steps))
    if summary.solutions or summary.steps:
        note = (
            "Share of correct steps or solutions against the verifier's value, in 15 bins; on the dotted line values "
            "are calibrated probabilities. The area of a point grows with the number of values in its bin."
        )
        parts.append(Section(title="Reliability", note=note, figure="reliability"))
    rows = [[key, str(value)] for key, value in summary.config.items() if value is not None]
    return [*parts, Section(title="How this was made", header=["", ""], rows=rows)]


def accuracy_section(found: Accuracy, shown: Uncertainty = INTERVALS) -> Section:
    """Describe the accuracy of every rule at the largest N.

    Includes the paired differences.
    """
    rows: list[list[str]] = []
    areas = found.auroc_per_problem
    for rule, estimate in found.accuracy.items():
        row = [rule_label(rule), percent(estimate.mean), shown.share(estimate)]
        if paired := found.paired.get(rule):
            row += [points(paired.difference), shown.difference(paired)]
        else:
            row += ["", ""]
        rows.append([*row, decimal(areas[rule]) if rule in areas else ""])
    note = (
        f"Share of the {found.num_problems:,} problems that a rule solves with {found.num_samples} samples of each. "
        "Shortest takes the sample with the fewest steps, without a verifier; the oracle is correct if any sample is. "
        "Paired differences, in percentage points, are from the majority vote (for the majority vote itself, from "
        f"pass@1); all {shown.words} are over the same bootstrap resamples of the problems. AUROC: how well a "
        "rule's values, such as scores or numbers of votes, order the samples within a problem (mean over the problems "
        "with correct and incorrect samples)."
    )
    header = ["rule", "accuracy", shown.header, "difference", shown.header, "AUROC"]
    dots = list(found.accuracy.values())
    title = f"Accuracy at N = {found.num_samples}"
    return Section(
        title=title, note=note, header=header, rows=rows, dots=dots, dots_figure="accuracy_dots", name="accuracy"
    )


def between_sections(found: Accuracy, shown: Uncertainty = INTERVALS) -> list[Section]:
    """Compare the rules of every verifier with those of every other, paired over the problems.

    One table of all rules of up to eight; of more, one table for each kind of rule.
    """
    judged = [rule for rule in found.accuracy if split_rule(rule)[0]]
    if not found.between:
        return []
    if len(judged) <= _MOST_COMPARED:
        return [_between_section(found, judged, "", shown)]
    kinds = dict.fromkeys(split_rule(rule)[1] for rule in judged)
    groups = {kind: [rule for rule in judged if split_rule(rule)[1] == kind] for kind in kinds}
    return [_between_section(found, rules, kind, shown) for kind, rules in groups.items() if len(rules) > 1]


def _between_section(found: Accuracy, rules: Sequence[str], kind: str, shown: Uncertainty) -> Section:
    labels = [split_rule(rule)[0] if kind else rule_label(rule) for rule in rules]

    def cell(row: int, column: int) -> str:
        first, second = sorted((row, column))
        one = found.between[rules[first]][rules[second]]
        if row > column:
            one = replace(one, difference=-one.difference, low=-one.high, high=-one.low)
        return f"{points(one.difference)} ({shown.difference(one)}){'*' * clear(one)}"

    places = range(len(rules))
    rows = [[labels[i], *("" if i == j else cell(i, j) for j in places)] for i in places]
    pairs = len(rules) * (len(rules) - 1) // 2
    note = (
        f"Problems solved at N = {found.num_samples} by the rule of the row minus those by the rule of the column, in "
        f"percentage points, with {shown.words} over the same bootstrap resamples of the problems; * marks "
        f"differences whose 95\u00a0% interval excludes zero. They are {pairs:,} comparisons, without a correction for "
        "their number: of rules that are equally good, one in twenty would be marked."
    )
    title = "Verifiers compared" + (f": {kind_label(kind)}" if kind else "")
    name = "verifiers_compared" + (f"_{kind}" if kind else "")
    return Section(title=title, note=note, header=["rule" if not kind else "verifier", *labels], rows=rows, name=name)


def _curves_section(found: Accuracy) -> Section:
    rows = [[rule_label(rule), *(percent(point.mean) for point in curve)] for rule, curve in found.curves.items()]
    note = (
        "Means over random subsets of N samples per problem, in per cent; bands are 95\u00a0% intervals, which are "
        "drawn for up to 12 rules; summary.json has them for all."
    )
    header = ["rule", *(f"N = {n}" for n in found.sizes)]
    return Section(title="Accuracy against N", note=note, header=header, rows=rows, figure="accuracy", name="curves")


def _aggregation_section(found: Accuracy) -> Section:
    tables = found.validation.best_of_n if found.validation else {}
    candidates = list(dict.fromkeys(how for table in tables.values() for how in table))
    rows = [
        [name, used.how, _ORIGINS[used.chosen_on], *(percent(tables.get(name, {}).get(how)) for how in candidates)]
        for name, used in found.aggregation.items()
    ]
    note = "How the values along a solution become its score. Nothing is chosen on the problems of this report."
    if found.validation and candidates:
        note += (
            f" The last columns show the accuracy of best-of-{found.validation.n} on {found.validation.num_problems:,} "
            "other problems; the best aggregation was taken if none was configured."
        )
    header = ["verifier", "aggregation", "chosen by", *candidates]
    return Section(title="Aggregation", note=note, header=header, rows=rows, name="aggregation")


def _comparison_section(found: Accuracy, shown: Uncertainty) -> Section:
    ways = list(next(iter(found.every_aggregation.values())))

    def cell(estimate: Estimate) -> str:
        better = isinstance(estimate, Compared) and estimate.paired is not None and estimate.paired.low > 0
        return f"{100 * estimate.mean:.1f} ({shown.share(estimate)})" + ("*" if better else "")

    alone = [rule for rule in ("pass@1", BASELINE, "shortest", "oracle") if rule in found.accuracy]
    rows = [[rule_label(rule), cell(found.accuracy[rule]), *[""] * (len(ways) - 1)] for rule in alone]
    rows += [[rule_label(rule), *map(cell, by_how.values())] for rule, by_how in found.every_aggregation.items()]
    note = (
        f"Problems solved at N = {found.num_samples}, in per cent, with {shown.words}; * marks a paired "
        "difference from the majority vote that is above zero in 97.5\u00a0% of the resamples. Do not choose an "
        "aggregation from this table: the best of many figures on the same problems is biased upwards."
    )
    title = "Every rule under every aggregation"
    return Section(title=title, note=note, header=["rule", *ways], rows=rows, name="every_aggregation")


def _solutions_section(solutions: Mapping[str, VerifierSolutions]) -> Section:
    qualities = ("auroc", "auroc_per_problem", "brier", "ece")
    columns = ("spearman_steps", "pearson_steps", "spearman_tokens", "pearson_tokens")
    rows: list[list[str]] = []
    strong = set()
    alone: dict[tuple[tuple[str, ...], ...], list[str]] = {}  # verifiers of the same solutions share these rows
    for name, found in solutions.items():
        for how, measured in found.aggregations.items():
            if how == found.used:
                strong.add(len(rows))
            rows.append([name, how, *(decimal(getattr(measured, key)) for key in (*qualities, *columns))])
        short = tuple(map(decimal, (found.shortest.auroc, found.shortest.auroc_per_problem)))
        truth = tuple(decimal(getattr(found.truth, key)) for key in columns)
        alone.setdefault((short, truth), []).append(name)
    for (short, truth), names in alone.items():
        name = "" if len(alone) == 1 else ", ".join(names)
        rows.append([name, "(shortest)", *short, *[""] * (2 + len(columns))])
        rows.append([name, "(correct or not)", *[""] * len(qualities), *truth])
    minima = "; ".join(
        f"{name}: {percent(m.mean)} of the way on average, at the first step in {percent(m.at_first)}, "
        f"at the last in {percent(m.at_last)} of the solutions"
        for name, found in solutions.items()
        if (m := found.minimum_position)
    )
    note = (
        "AUROC: how well a solution's score separates correct from incorrect solutions, over all of them and within a "
        "problem (mean over the problems with both kinds). Brier score and expected calibration error (ECE): how well "
        "calibrated the score is as a probability. Spearman's ρ and Pearson's r: its correlation with the number of "
        "steps and tokens. The rows “shortest” take the shorter of two solutions for the correct one, without a "
        "verifier; “correct or not” shows the correlations of a perfect verifier: a score with a stronger correlation "
        "prefers length for its own sake. Bold: the aggregation in use."
    )
    if minima:
        note += f" Position of the lowest value: {minima}."
    lengths = ["ρ steps", "r steps", "ρ tokens", "r tokens"]
    header = ["verifier", "score", "AUROC", "in a problem", "Brier", "ECE", *lengths]
    strong_rows = frozenset(strong)
    return Section(
        title="Scores of solutions", note=note, header=header, rows=rows, strong=strong_rows, name="solutions"
    )


def steps_section(steps: Mapping[str, VerifierSteps], shown: Uncertainty = INTERVALS) -> Section:
    """Describe each verifier's step values, next to baselines without a verifier."""
    fields = (
        ("steps with a label", "num_steps", count),
        ("share of correct steps", "base_rate", percent),
        ("accuracy at 0.5", "accuracy", percent),
        ("F1 of the incorrect steps", "f1_error", decimal),
        ("… of calling every step incorrect", "f1_all_incorrect", decimal),
        ("expected calibration error", "ece", decimal),
        ("AUROC of the place in the solution alone", "auroc_position", decimal),
        ("AUROC of the length in characters alone", "auroc_length", decimal),
        ("AUROC", "auroc", decimal),
    )
    rows = [[label, *(show(getattr(found, key)) for found in steps.values())] for label, key, show in fields]
    orders = [found.order for found in steps.values()]
    rows.append([f"… its {shown.header}", *(_area(order.interval, shown) for order in orders)])
    alone = {"position": "place alone", "length": "length alone"}
    others = dict.fromkeys(key for order in orders for key in order.above)
    rows += [[f"… above {alone.get(o, o)}", *(_area(order.above.get(o), shown) for order in orders)] for o in others]
    note = (
        "A step is correct if it was rated so, or if any rollout from it reached the correct answer; it is judged "
        "correct at a value of 0.5 or more. Place and length are baselines without a verifier: they take the later or "
        f"the longer of two steps for the incorrect one. The {shown.words} are over bootstrap resamples of the "
        "problems, and differences are taken within each resample."
    )
    return Section(title="Values of steps", note=note, header=["", *steps], rows=rows, name="steps")


def _area(point: Interval | None, shown: Uncertainty) -> str:
    if point is None:
        return ""
    return shown.area_difference(point) if isinstance(point, Difference) else shown.area(point)


def _subsets_section(steps: Mapping[str, VerifierSteps]) -> Section:
    keys = ("auroc", "auroc_position", "auroc_length", "f1_error", "f1_all_incorrect", "ece")
    rows = [
        [name, subset, count(found.num_steps), percent(found.base_rate), *(decimal(getattr(found, k)) for k in keys)]
        for name, whole in steps.items()
        for subset, found in whole.subsets.items()
    ]
    baselines = ["AUROC", "… of place", "… of length", "F1", "… all incorrect"]
    header = ["verifier", "subset", "steps", "correct", *baselines, "ECE"]
    title = "Values of steps by subset"
    return Section(title=title, note="Measures as above.", header=header, rows=rows, name="steps_by_subset")
