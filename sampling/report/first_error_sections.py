"""Turn how well verifiers find first errors into sections with tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sampling.report.first_error_summary import FirstErrorQuality, VerifierFirstErrors
from sampling.report.section import INTERVALS, Section, Uncertainty, count, percent
from sampling.report.summary import Estimate


def first_error_section(found: Mapping[str, VerifierFirstErrors], shown: Uncertainty = INTERVALS) -> Section:
    """Describe how well verifiers find first errors, by subset and threshold."""
    rows: list[list[str]] = []
    dots: list[Estimate | None] = []
    strong = set()

    def add(name: str, subset: str, threshold: str, counts_and_rates: list[str], f1: Estimate | None) -> None:
        if subset not in found[name].subsets:
            strong.add(len(rows))
        rows.append(
            [
                name,
                subset,
                threshold,
                *counts_and_rates,
                percent(f1.mean if f1 else None),
                shown.share(f1) if f1 else "–",
            ]
        )
        dots.append(f1)

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
        f"harmonic mean of the two accuracies (ProcessBench, Zheng et al. 2024). The {shown.words} are over "
        "bootstrap resamples of the solutions, with the threshold kept."
    )
    if chosen_on := next(iter(found.values())).chosen_on:
        note += f" The second threshold is the best one on {chosen_on}, so its F1 there is biased upwards."
    unread = [f"{name} {one.num_unread:,}" for name, one in found.items() if one.num_unread]
    if unread:
        note += f" Solutions too long for a verifier count as judged incorrectly: {', '.join(unread)}."
    header = [
        "verifier", "subset", "threshold", "erroneous samples", "correct samples", "accuracy on erroneous",
        "accuracy on correct", "F1", shown.header,
    ]  # fmt: skip
    return Section(
        title="First errors", note=note, header=header, rows=rows, dots=dots, strong=frozenset(strong),
        name="first_errors",
    )  # fmt: skip


def lowest_section(found: Mapping[str, VerifierFirstErrors]) -> Section:
    """Describe where the lowest value of a solution is."""
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
    return Section(title="Position of the lowest value", note=note, header=header, rows=rows, name="lowest_values")


def _groups(found: VerifierFirstErrors) -> Iterator[tuple[str, FirstErrorQuality]]:
    """Yield the subsets, then all solutions."""
    yield from found.subsets.items()
    yield "all", found.all
