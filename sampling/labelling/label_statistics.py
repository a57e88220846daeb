"""Count solutions, answers and labels for the label stage's summary."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from operator import eq
from typing import Any

from sampling.labelling.outcomes import verdict_key
from stepverify.keys import KeyNumbers, KeySet
from stepverify.readers.base import same_steps
from stepverify.records import Solution

_BAD = ("without_answer", "cut_off", "duplicates")  # a duplicate has the steps of an earlier solution
_STEPS = ("labelled_steps", "rollouts", "correct_rollouts")


def count(solutions: Iterable[Solution], given: KeySet) -> dict[str, Any]:
    """Count labelled solutions by outcome, generator and problem.

    Args:
        solutions: the labelled solutions.
        given: :func:`~sampling.labelling.outcomes.verdict_key` of the verdicts that solutions came with.
    """
    counts = Counter[str](dict.fromkeys(("solutions", "correct", *_BAD, *_STEPS), 0))
    texts, problems = KeySet(), KeyNumbers()
    sizes, correct, generators = array("I"), array("I"), dict[str, Counter[str]]()
    changed = []
    for s in solutions:
        labels = [label for label in s.step_labels or [] if label]
        counts.update(
            solutions=1, correct=bool(s.correct), without_answer=s.predicted is None, cut_off=s.finish == "length",
            duplicates=not texts.add(f"{s.problem_id} {same_steps(s.steps).hex()}"), labelled_steps=len(labels),
            rollouts=sum(label.num_rollouts or 0 for label in labels),
            correct_rollouts=sum(label.num_correct or 0 for label in labels),
        )  # fmt: skip
        number = problems.number(s.problem_id)
        if number == len(sizes):
            sizes.append(0)
            correct.append(0)
        sizes[number] += 1
        correct[number] += bool(s.correct)
        generators.setdefault(s.generator or "unknown", Counter()).update(solutions=1, correct=bool(s.correct))
        if given and verdict_key(s.id, correct=not s.correct) in given:
            changed.append(s.id)
    summary: dict[str, Any] = dict(counts) | {
        "problems": len(sizes),
        "problems_without_correct": sum(number == 0 for number in correct),
        "problems_without_incorrect": sum(map(eq, correct, sizes)),
    }
    if len(generators) > 1:
        summary["by_generator"] = {name: dict(found) for name, found in generators.items()}
    return summary | ({"changed_verdicts": sorted(changed)} if given else {})


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
