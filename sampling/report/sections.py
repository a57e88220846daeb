"""Turn the summary of a report into sections with tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sampling.report.accuracy import BASELINE, rule_label
from sampling.report.budget_sections import budget_sections
from sampling.report.section import Section, count, decimal, percent, points, span
from sampling.report.summary import (
    Accuracy,
    Compared,
    Difference,
    Estimate,
    FirstErrorQuality,
    Interval,
    Summary,
    VerifierFirstErrors,
    VerifierSolutions,
    VerifierSteps,
)

_ORIGINS = {"validation": "validation problems", "configured": "the configuration", "calibration": "the calibration",
            "default": "default"}  # fmt: skip


def sections(summary: Summary) -> list[Section]:
    """Return the sections of a report, in order.

    Percentages are of problems, steps or solutions; differences are in percentage points.
    """
    parts = []
    if summary.warnings:
        parts.append(Section(title="Warnings", header=[""], rows=[[line] for line in summary.warnings]))
    if summary.accuracy:
        parts += [accuracy_section(summary.accuracy), _curves_section(summary.accuracy)]
    if summary.searches:
        parts += budget_sections(summary.searches)
    if summary.first_errors:
        parts += [first_error_section(summary.first_errors), _lowest_section(summary.first_errors)]
    if summary.accuracy and summary.accuracy.aggregation:
        parts.append(_aggregation_section(summary.accuracy))
    if summary.accuracy and summary.accuracy.every_aggregation:
        parts.append(_comparison_section(summary.accuracy))
    if summary.solutions:
        parts.append(_solutions_section(summary.solutions))
    if summary.steps:
        parts.append(steps_section(summary.steps))
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


def accuracy_section(found: Accuracy) -> Section:
    """Describe the accuracy of every rule at the largest N.

    Includes the paired differences.
    """
    rows: list[list[str]] = []
    areas = found.auroc_per_problem
    for rule, estimate in found.accuracy.items():
        row = [rule_label(rule), percent(estimate.mean), span(estimate)]
        if paired := found.paired.get(rule):
            row += [points(paired.difference), f"{points(paired.low)} to {points(paired.high)}"]
        else:
            row += ["", ""]
        rows.append([*row, decimal(areas[rule]) if rule in areas else ""])
    note = (
        f"Share of the {found.num_problems:,} problems that a rule solves with {found.num_samples} samples of each. "
        "Shortest takes the sample with the fewest steps, without a verifier; the oracle is correct if any sample is. "
        "Paired differences, in percentage points, are from the majority vote (for the majority vote itself, from "
        "pass@1); all intervals (95\u00a0%) are over the same bootstrap resamples of the problems. AUROC: how well a "
        "rule's values, such as scores or numbers of votes, order the samples within a problem (mean over the problems "
        "with correct and incorrect samples)."
    )
    header = ["rule", "accuracy", "interval", "difference", "interval", "AUROC"]
    bars = list(found.accuracy.values())
    return Section(title=f"Accuracy at N = {found.num_samples}", note=note, header=header, rows=rows, bars=bars)


def _curves_section(found: Accuracy) -> Section:
    rows = [[rule_label(rule), *(percent(point.mean) for point in curve)] for rule, curve in found.curves.items()]
    note = "Means over random subsets of N samples per problem, in per cent; bands are 95\u00a0% intervals."
    header = ["rule", *(f"N = {n}" for n in found.sizes)]
    return Section(title="Accuracy against N", note=note, header=header, rows=rows, figure="accuracy")


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
    return Section(title="Aggregation", note=note, header=header, rows=rows)


def _comparison_section(found: Accuracy) -> Section:
    ways = list(next(iter(found.every_aggregation.values())))

    def cell(estimate: Estimate) -> str:
        better = isinstance(estimate, Compared) and estimate.paired is not None and estimate.paired.low > 0
        return f"{100 * estimate.mean:.1f} ({span(estimate)})" + ("*" if better else "")

    alone = [rule for rule in ("pass@1", BASELINE, "shortest", "oracle") if rule in found.accuracy]
    rows = [[rule_label(rule), cell(found.accuracy[rule]), *[""] * (len(ways) - 1)] for rule in alone]
    rows += [[rule_label(rule), *map(cell, by_how.values())] for rule, by_how in found.every_aggregation.items()]
    note = (
        f"Problems solved at N = {found.num_samples}, in per cent, with 95\u00a0% intervals; * marks a paired "
        "difference from the majority vote that is above zero in 97.5\u00a0% of the resamples. Do not choose an "
        "aggregation from this table: the best of many figures on the same problems is biased upwards."
    )
    return Section(title="Every rule under every aggregation", note=note, header=["rule", *ways], rows=rows)


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
    return Section(title="Scores of solutions", note=note, header=header, rows=rows, strong=frozenset(strong))


def steps_section(steps: Mapping[str, VerifierSteps]) -> Section:
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
    rows.append(["… its interval", *(_auroc_span(order.interval) for order in orders)])
    alone = {"position": "place alone", "length": "length alone"}
    others = dict.fromkeys(key for order in orders for key in order.above)
    rows += [[f"… above {alone.get(o, o)}", *(_auroc_span(order.above.get(o)) for order in orders)] for o in others]
    note = (
        "A step is correct if it was rated so, or if any rollout from it reached the correct answer; it is judged "
        "correct at a value of 0.5 or more. Place and length are baselines without a verifier: they take the later or "
        "the longer of two steps for the incorrect one. Intervals (95\u00a0%) are over bootstrap resamples of the "
        "problems, and differences are taken within each resample."
    )
    return Section(title="Values of steps", note=note, header=["", *steps], rows=rows)


def _auroc_span(point: Interval | None) -> str:
    if point is None:
        return ""
    if isinstance(point, Difference):
        return f"{point.difference:+.3f} ({point.low:+.3f} to {point.high:+.3f})"
    return f"{point.low:.3f} – {point.high:.3f}"


def _subsets_section(steps: Mapping[str, VerifierSteps]) -> Section:
    keys = ("auroc", "auroc_position", "auroc_length", "f1_error", "f1_all_incorrect", "ece")
    rows = [
        [name, subset, count(found.num_steps), percent(found.base_rate), *(decimal(getattr(found, k)) for k in keys)]
        for name, whole in steps.items()
        for subset, found in whole.subsets.items()
    ]
    baselines = ["AUROC", "… of place", "… of length", "F1", "… all incorrect"]
    header = ["verifier", "subset", "steps", "correct", *baselines, "ECE"]
    return Section(title="Values of steps by subset", note="Measures as above.", header=header, rows=rows)


def first_error_section(found: Mapping[str, VerifierFirstErrors]) -> Section:
    """Describe how well verifiers find first errors, by subset and threshold."""
    rows: list[list[str]] = []
    bars: list[Estimate | None] = []
    strong = set()

    def add(name: str, subset: str, threshold: str, counts_and_rates: list[str], f1: Estimate | None) -> None:
        if subset not in found[name].subsets:
            strong.add(len(rows))
        rows.append(
            [name, subset, threshold, *counts_and_rates, percent(f1.mean if f1 else None), span(f1) if f1 else "–"]
        )
        bars.append(f1)

    for name, one in found.items():
        for subset, group in _groups(one):
            for rates in (group.half, group.chosen):
                if rates is not None:
                    here = " (chosen here)" if rates is group.chosen and subset == one.chosen_on else ""
                    cells = [count(group.num_incorrect), count(group.num_correct)]
                    cells += [
                        percent(p.mean if p else None) for p in (rates.erroneous_accuracy, rates.correct_accuracy)
                    ]
                    add(name, subset, f"{rates.threshold:.3f}{here}", cells, rates.f1)
        if one.mean:
            for pooled, f1 in ((one.all.half, one.mean.half), (one.all.chosen, one.mean.chosen)):
                if pooled is not None:
                    add(name, "mean of subsets", f"{pooled.threshold:.3f}", [""] * 4, f1)
    note = (
        "The first step with a value below the threshold is predicted to be the first error. For a solution with an "
        "error, this is correct if it is the labelled step; for a solution without, if no step is below. F1 is the "
        "harmonic mean of the two accuracies (ProcessBench, Zheng et al. 2024). Intervals (95\u00a0%) are over "
        "bootstrap resamples of the solutions, with the threshold kept."
    )
    if chosen_on := next(iter(found.values())).chosen_on:
        note += f" The second threshold is the best one on {chosen_on}, so its F1 there is biased upwards."
    unread = [f"{name} {one.num_unread:,}" for name, one in found.items() if one.num_unread]
    if unread:
        note += f" Solutions too long for a verifier count as judged incorrectly: {', '.join(unread)}."
    header = ["verifier", "subset", "threshold", "with error", "without", "erroneous", "correct", "F1", "interval"]
    return Section(title="First errors", note=note, header=header, rows=rows, bars=bars, strong=frozenset(strong))


def _lowest_section(found: Mapping[str, VerifierFirstErrors]) -> Section:
    keys = ("at_first_error", "place_incorrect", "place_first_error", "place_correct")
    rows = [
        [name, subset, *(percent(getattr(group.lowest, key)) for key in keys)]
        for name, one in found.items()
        for subset, group in _groups(one)
    ]
    note = (
        "How often the lowest value of an incorrect solution is that of its first error, and the average position of "
        "the lowest value and of the first error, from 0 % (first step) to 100 % (final step)."
    )
    header = ["verifier", "subset", "at the first error", "place, incorrect", "first error", "place, correct"]
    return Section(title="Where the lowest value stands", note=note, header=header, rows=rows)


def _groups(found: VerifierFirstErrors) -> Iterator[tuple[str, FirstErrorQuality]]:
    """Yield the subsets, then all solutions."""
    yield from found.subsets.items()
    yield "all", found.all
