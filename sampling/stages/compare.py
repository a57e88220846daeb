"""Compare step labels of the same solutions from several sources."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from sampling.report.collect import first_error
from sampling.report.render import to_markdown, to_text
from sampling.report.section import Section, count, decimal, percent, span
from sampling.report.summary import Estimate
from sampling.runtime.store import read_summary
from stepverify import atomic, trial
from stepverify.data.targets import StepTargets
from stepverify.jsonl import write_lines
from stepverify.readers import Reader, Solutions
from stepverify.readers.base import once
from stepverify.records import InputError, Solution, StepLabel
from stepverify.statistics import bootstrap_means, spread

_COSTS = {"rollouts": "rollouts", "rollout_tokens": "tokens", "seconds": "seconds"}  # key in the manifest → column


class _Costs(Struct):
    """Hold what the label stage's summary says of costs."""

    rollouts: int | float | None = None
    rollout_tokens: int | float | None = None
    seconds: int | float | None = None
    rollouts_reused: int | None = None


@dataclass(slots=True)
class Comparison:
    """Count where the labels of one source agree with the reference.

    Attributes:
        steps: (correct in the reference, labelled correct) → number of steps that both label.
        firsts: ``same``, ``earlier``, ``later`` → number of solutions, by the place of the labelled first incorrect
            step relative to that of the reference. Counts solutions for which both know the first incorrect step, or
            that there is none.
        by_problem: problem → number of steps that both label, of those on which they agree, of solutions with a known
            first error in both, and of those in which it is the same.
        disputes: the steps on which the two disagree.
        missing: solutions of the reference that this source does not label.
    """

    steps: Counter[tuple[bool, bool]] = field(default_factory=Counter)
    firsts: Counter[str] = field(default_factory=Counter)
    by_problem: dict[str, list[int]] = field(default_factory=dict)
    disputes: list[dict[str, Any]] = field(default_factory=list)
    missing: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Describe how far one source agrees with the reference.

    The counts are numbers of steps and of solutions.

    Attributes:
        correct_in_reference: share of the steps that are correct in the reference.
        unlucky: steps that are correct in the reference and labelled incorrect.
        lenient: steps that are incorrect in the reference and labelled correct.
        first_error: share of the solutions with the same first error; ``earlier`` and ``later`` count the others.
    """

    num_steps: int
    agreement: Estimate
    kappa: float | None
    correct_in_reference: float
    unlucky: int
    lenient: int
    both_correct: int
    both_incorrect: int
    num_first_errors: int
    first_error: Estimate | None
    earlier: int
    later: int
    solutions_missing: int


def compare(
    labels: dict[str, Path | Reader],
    reference: str,
    output: Path,
    targets: StepTargets = StepTargets(),  # noqa: B008 - frozen
    final_step: bool = False,
    num_bootstrap: int = 2000,
    seed: int = 0,
) -> None:
    """Compare step labels with those of a reference.

    The reference may be human ratings, the labels of another strategy or those of a larger generator.

    Writes ``summary.json``, ``report.md`` and ``disputes.jsonl``, with one line for each step on which a source
    disagrees with the reference, and prints the tables. Agreement is measured over the steps that both label.
    ``unlucky`` steps are correct in the reference and labelled incorrect (no completion found the answer); ``lenient``
    steps are incorrect in the reference and labelled correct (completions repaired the step, or were correct by
    chance).

    Args:
        labels: name → labelled solutions, or a reader of them (``HumanRatings``). Solutions are matched by id.
        reference: the name of the labels that the others are compared with.
        output: the folder to write to; created if it does not exist.
        targets: how labels become correct or incorrect; every target must be one of the two.
        final_step: include final steps. They state the answer and are labelled by grading it, so automatic labels agree
            there trivially. First errors are searched in all steps either way.
        num_bootstrap: number of bootstrap resamples of the problems for each interval.
        seed: seed of the resamples.

    Raises:
        InputError: an unknown reference, nothing to compare it with, targets that are not hard, solutions with the same
            id and different steps, or two sources without a common step label.
    """
    if reference not in labels or len(labels) < 2:
        raise InputError(f"reference: expected one of at least two labels ({', '.join(labels)}), got {reference!r}")
    if targets.monte_carlo == "soft" or targets.neutral == "class":
        raise InputError("targets: only correct and incorrect can be compared; no monte_carlo: soft, no neutral: class")
    atomic.refuse_others(output, folder=True)
    if num_bootstrap < 1:
        raise InputError(f"num_bootstrap: expected 1 or more, got {num_bootstrap}")
    known = {s.id: s for s in _labelled(trial.limit_reader(_reader(labels[reference])))}
    costs = {name: _costs(of) for name, of in labels.items()}
    agreements: dict[str, Agreement] = {}
    disputes = []
    for name, source in labels.items():
        if name != reference:
            found = _compare(name, known, _labelled(_reader(source)), targets, final_step=final_step)
            disputes += found.disputes
            agreements[name] = _measures(found, num_bootstrap, seed)
    config = {"final_step": final_step, "num_bootstrap": num_bootstrap, "seed": seed, **trial.described()}
    plain = {name: asdict(found) for name, found in agreements.items()}
    summary = {"reference": reference, "costs": costs, "labels": plain, "config": config}
    write_lines(output / "disputes.jsonl", (json.dumps(row, ensure_ascii=False) + "\n" for row in disputes))
    atomic.write(output / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    parts = [_steps_section(agreements, reference), _firsts_section(agreements, reference), _costs_section(costs)]
    atomic.write(output / "report.md", to_markdown("Step labels compared", parts))
    atomic.check_written(output, ("disputes.jsonl", "summary.json", "report.md"))
    print("\n\n".join([*map(to_text, parts), str(output / "report.md")]))


def _reader(source: Path | Reader) -> Reader:
    return source if isinstance(source, Reader) else Solutions(str(source))


def _labelled(reader: Reader) -> Iterator[Solution]:
    return (s for s in once(reader.solutions(), reader.described) if s.step_labels is not None)


def _compare(
    name: str, known: Mapping[str, Solution], labelled: Iterator[Solution], targets: StepTargets, *, final_step: bool
) -> Comparison:
    found = Comparison(missing=len(known))
    for solution in labelled:
        if (truth := known.get(solution.id)) is None:
            continue
        found.missing -= 1
        if truth.steps != solution.steps:
            raise InputError(f"{name}: solution {solution.id} has different steps in the reference")
        row = found.by_problem.setdefault(solution.problem_id, [0, 0, 0, 0])
        wanted, given = ([None if t is None else t == 1 for t in targets.of(s)] for s in (truth, solution))
        for i, (correct, said) in enumerate(zip(wanted, given, strict=True)):
            if correct is not None and said is not None and (final_step or i + 1 < len(wanted)):
                found.steps[correct, said] += 1
                row[0] += 1
                row[1] += correct == said
                if correct != said:
                    found.disputes.append(_dispute(name, solution, i, correct, truth))
        true, first = first_error(wanted), first_error(given)
        if true is not None and first is not None:
            # No error counts as later than any error.
            place = {-1: len(wanted)}
            order = place.get(first, first) - place.get(true, true)
            found.firsts["same" if not order else "earlier" if order < 0 else "later"] += 1
            row[2] += 1
            row[3] += not order
    if not found.steps:
        raise InputError(f"{name}: none of its labelled steps has a label in the reference")
    return found


def _dispute(name: str, solution: Solution, step: int, correct: bool, truth: Solution) -> dict[str, Any]:
    def plain(label: StepLabel | None) -> dict[str, Any]:
        fields = ("rating", "num_correct", "num_rollouts", "value")
        return {key: value for key in fields if (value := getattr(label, key)) is not None}

    assert solution.step_labels is not None
    assert truth.step_labels is not None
    return {
        "labels": name, "id": solution.id, "step": step, "kind": "unlucky" if correct else "lenient",
        "reference": plain(truth.step_labels[step]), "label": plain(solution.step_labels[step]),
        "problem": solution.problem, "answer": solution.answer, "steps": solution.steps[: step + 1],
    }  # fmt: skip


def _measures(found: Comparison, num_bootstrap: int, seed: int) -> Agreement:
    total, correct, said = sum(found.steps.values()), found.steps[True, True], found.steps[False, True]
    share = (
        (correct + found.steps[True, False]) / total,
        (correct + said) / total,
    )  # shares of correct steps: in the reference, as labelled
    agreed = (correct + found.steps[False, False]) / total
    by_chance = share[0] * share[1] + (1 - share[0]) * (1 - share[1])
    sums = bootstrap_means(np.array([*found.by_problem.values()], float), num_bootstrap, seed)
    agreement = _point(agreed, sums[:, 1], sums[:, 0])
    assert agreement is not None  # the comparison has steps
    return Agreement(
        num_steps=total,
        agreement=agreement,
        kappa=None if by_chance == 1 else (agreed - by_chance) / (1 - by_chance),
        correct_in_reference=share[0],
        unlucky=found.steps[True, False],
        lenient=said,
        both_correct=correct,
        both_incorrect=found.steps[False, False],
        num_first_errors=found.firsts.total(),
        first_error=_point(found.firsts["same"] / (found.firsts.total() or 1), sums[:, 3], sums[:, 2]),
        earlier=found.firsts["earlier"],
        later=found.firsts["later"],
        solutions_missing=found.missing,
    )


def _point(mean: float, part: np.ndarray, whole: np.ndarray) -> Estimate | None:
    if not whole.any():
        return None
    return Estimate(mean=mean, **spread(np.array([mean, *(part[whole > 0] / whole[whole > 0])])))


def _costs(source: Path | Reader) -> dict[str, float]:
    found = read_summary(source, _Costs) if isinstance(source, Path) else _Costs()
    if found.rollouts_reused is not None:  # they took another run's seconds, so this run's say too little
        found.seconds = None
    return {name: cost for key, name in _COSTS.items() if (cost := getattr(found, key)) is not None}


def _steps_section(agreements: Mapping[str, Agreement], reference: str) -> Section:
    rows = [
        [name, count(m.num_steps), percent(m.correct_in_reference), percent(m.agreement.mean), span(m.agreement),
         decimal(m.kappa), count(m.unlucky), count(m.lenient)]
        for name, m in agreements.items()
    ]  # fmt: skip
    note = (
        "Share of the steps labelled by both on which they agree, with its 95\u00a0% interval over bootstrap resamples "
        "of the problems, and Cohen's kappa, which is 0 for agreement by chance alone. Unlucky steps are correct "
        "in the reference and labelled incorrect, lenient steps incorrect and labelled correct."
    )
    header = ["labels", "steps", "correct", "agreement", "interval", "kappa", "unlucky", "lenient"]
    return Section(title=f"Steps, against {reference}", note=note, header=header, rows=rows)


def _firsts_section(agreements: Mapping[str, Agreement], reference: str) -> Section:
    rows = [
        [name, count(m.num_first_errors), percent(m.first_error.mean if m.first_error else None),
         span(m.first_error) if m.first_error else "–", count(m.earlier), count(m.later)]
        for name, m in agreements.items()
    ]  # fmt: skip
    note = "Solutions whose first incorrect step, or its absence, both know. No error counts as later than any."
    header = ["labels", "solutions", "same", "interval", "earlier", "later"]
    return Section(title=f"First errors, against {reference}", note=note, header=header, rows=rows)


def _costs_section(by_source: Mapping[str, Mapping[str, float]]) -> Section:
    rows = [
        [name, *(f"{costs[key]:,.0f}" if key in costs else "–" for key in _COSTS.values())]
        for name, costs in by_source.items()
    ]  # fmt: skip
    note = "What was sampled for the labels, by their manifests; seconds are those of the run that finished them."
    return Section(title="Costs", note=note, header=["labels", *_COSTS.values()], rows=rows)
