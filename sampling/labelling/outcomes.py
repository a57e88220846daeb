"""Label outcomes: grade the final answers of solutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from sampling.labelling.answer_fallback import Unstated
from stepverify.answers import Grader, concluded_number, extract_answer, last_number
from stepverify.jsonl import read_records
from stepverify.readers import Reader
from stepverify.readers.base import once
from stepverify.records import InputError, Solution

Fallback = Literal["no_answer", "last_number", "conclusion"]
_FALLBACKS: dict[str, Callable[[str], str | None]] = {
    "no_answer": lambda text: None, "last_number": last_number, "conclusion": concluded_number,
}  # fmt: skip


def by_problem(source: Path | Reader) -> list[list[Solution]]:
    """Read solutions, grouped by problem.

    Raises:
        InputError: a problem without a reference answer, or solutions of one problem with different reference answers.
    """
    path = source.described if isinstance(source, Reader) else source
    groups: dict[str, list[Solution]] = {}
    solutions = source.solutions() if isinstance(source, Reader) else read_records(source, Solution)
    for solution in once(solutions, str(path)):
        group = groups.setdefault(solution.problem_id, [])
        if not solution.answer:
            raise InputError(
                f"{path}: solution {solution.id}: its problem has no reference answer ('answer') to grade it by"
            )
        if group and group[0].answer != solution.answer:
            raise InputError(
                f"{path}: solution {solution.id}: answer {solution.answer!r}, but {group[0].id} has {group[0].answer!r}"
            )
        group.append(solution)
    if not groups:
        left_out = f"; left out: {source.left_out}" if isinstance(source, Reader) and source.left_out else ""
        raise InputError(f"{path}: no solution was read{left_out}")
    return list(groups.values())


def grade_solutions(group: list[Solution], grader: Grader, answer_fallback: Fallback = "no_answer") -> list[Solution]:
    """Set ``predicted``, ``correct`` and ``timed_out`` of solutions, and return them.

    Their problems must have reference answers.
    """
    for solution in group:
        text = solution.text
        # An answer in a solution that was cut off is not its final answer.
        solution.predicted = (
            None if solution.finish == "length" else extract_answer(text) or _FALLBACKS[answer_fallback](text)
        )
    for solution, verdict in zip(group, grader.grade((s.answer, s.predicted) for s in group), strict=True):
        solution.correct, solution.timed_out = verdict is True, verdict is None
    return group


def count_unstated(solutions: Iterable[Solution], found: Unstated) -> Iterator[Solution]:
    """Pass solutions on, and count those that state no answer."""
    for s in solutions:
        found.add(s.text, stated=s.finish == "length" or extract_answer(s.text) is not None)
        yield s
