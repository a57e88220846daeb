"""Count solutions, answers and labels for the label stage's summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sampling.labelling.outcomes import Survey
from stepverify.readers.base import same_steps
from stepverify.records import Solution

_BAD = ("without_answer", "cut_off", "duplicates")  # a duplicate has the steps of an earlier solution
_STEPS = ("labelled_steps", "rollouts", "correct_rollouts")


def count(solutions: Iterable[Solution], survey: Survey) -> dict[str, Any]:
    """Count labelled solutions by outcome, generator and problem.

    Args:
        solutions: the labelled solutions; those of a problem are held together until its last one.
        survey: of the input, which says how many a problem has, and the verdicts that they came with.
    """
    counts = Counter[str](dict.fromkeys(("solutions", "correct", *_BAD, *_STEPS), 0))
    problems = Counter[str](dict.fromkeys(("problems", "problems_without_correct", "problems_without_incorrect"), 0))
    begun, generators, changed = dict[str, _Begun](), dict[str, Counter[str]](), list[str]()
    for s in solutions:
        labels = [label for label in s.step_labels or [] if label]
        problem, steps = begun.setdefault(s.problem_id, _Begun()), same_steps(s.steps)
        counts.update(
            solutions=1, correct=bool(s.correct), without_answer=s.predicted is None, cut_off=s.finish == "length",
            duplicates=steps in problem.texts, labelled_steps=len(labels),
            rollouts=sum(label.num_rollouts or 0 for label in labels),
            correct_rollouts=sum(label.num_correct or 0 for label in labels),
        )  # fmt: skip
        problem.texts.add(steps)
        problem.size += 1
        problem.correct += bool(s.correct)
        if problem.size == survey.size(s.problem_id):
            del begun[s.problem_id]
            problems.update(
                problems=1, problems_without_correct=not problem.correct,
                problems_without_incorrect=problem.correct == problem.size,
            )  # fmt: skip
        generators.setdefault(s.generator or "unknown", Counter()).update(solutions=1, correct=bool(s.correct))
        if survey.changes(s):
            changed.append(s.id)
    summary: dict[str, Any] = dict(counts) | dict(problems)
    if len(generators) > 1:
        summary["by_generator"] = {name: dict(found) for name, found in generators.items()}
    return summary | ({"changed_verdicts": sorted(changed)} if survey.has_verdicts else {})


@dataclass(slots=True)
class _Begun:
    """Hold what is known of a problem, some of whose solutions were counted."""

    texts: set[bytes] = field(default_factory=set)
    size: int = 0
    correct: int = 0


def describe(summary: Mapping[str, Any]) -> str:
    """Describe the counts in a few lines, indented after the first."""
    lines = [
        _line(summary, "solutions", "correct", *_BAD, "labelled_steps"),
        _line(summary, "problems", "problems_without_correct", "problems_without_incorrect"),
    ]
    for name, found in summary.get("by_generator", {}).items():
        share = 100 * found["correct"] / found["solutions"]
        lines.append(f"{name}: {found['correct']} of {found['solutions']} correct, {share:.2f} %")
    if "changed_verdicts" in summary:
        lines.append(f"verdicts of the input that have changed: {len(summary['changed_verdicts'])}")
    for key in ("left_out", "noted"):
        if found := summary.get(key):
            told = (f"{what['count']} {reason} ({what['first']})" for reason, what in found.items())
            lines.append(f"{key.replace('_', ' ')}: {', '.join(told)}")
    return "\n  ".join(lines)


def _line(summary: Mapping[str, Any], *keys: str) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {summary[key]}" for key in keys)
