"""Count solutions, answers and labels for the label stage's summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from stepverify.readers.base import same_steps
from stepverify.records import Solution

_BAD = ("without_answer", "cut_off", "duplicates")  # a duplicate has the steps of an earlier solution
_STEPS = ("labelled_steps", "rollouts", "correct_rollouts")


def count(solutions: Iterable[Solution], given: Mapping[str, bool]) -> dict[str, Any]:
    """Count labelled solutions by outcome, generator and problem.

    Args:
        solutions: the labelled solutions.
        given: solution id → verdict that the solution came with.
    """
    counts = Counter[str](dict.fromkeys(("solutions", "correct", *_BAD, *_STEPS), 0))
    texts: dict[str, set[bytes]] = {}
    sizes, correct, generators = Counter[str](), Counter[str](), dict[str, Counter[str]]()
    changed = []
    for s in solutions:
        labels = [label for label in s.step_labels or [] if label]
        known, steps = texts.setdefault(s.problem_id, set()), same_steps(s.steps)
        counts.update(
            solutions=1, correct=bool(s.correct), without_answer=s.predicted is None, cut_off=s.finish == "length",
            duplicates=steps in known, labelled_steps=len(labels),
            rollouts=sum(label.num_rollouts or 0 for label in labels),
            correct_rollouts=sum(label.num_correct or 0 for label in labels),
        )  # fmt: skip
        known.add(steps)
        correct[s.problem_id] += bool(s.correct)
        sizes[s.problem_id] += 1
        generators.setdefault(s.generator or "unknown", Counter()).update(solutions=1, correct=bool(s.correct))
        if given.get(s.id, s.correct) != s.correct:
            changed.append(s.id)
    summary: dict[str, Any] = dict(counts) | {
        "problems": len(sizes),
        "problems_without_correct": sum(not correct[problem] for problem in sizes),
        "problems_without_incorrect": sum(correct[problem] == size for problem, size in sizes.items()),
    }
    if len(generators) > 1:
        summary["by_generator"] = {name: dict(found) for name, found in generators.items()}
    return summary | ({"changed_verdicts": changed} if given else {})


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
