"""Label outcomes: grade the final answers of solutions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from sampling.labelling.answer_fallback import Unstated
from stepverify.answers import Extracted, Fallback, Grader
from stepverify.jsonl import read_records
from stepverify.readers import Reader
from stepverify.readers.base import once
from stepverify.records import InputError, Solution

_CHUNK = 256  # solutions read again at a time


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


def grade_solutions(
    solutions: list[Solution], grader: Grader, answer_fallback: Fallback = "no_answer"
) -> list[Solution]:
    """Set ``predicted``, ``correct`` and ``timed_out`` of solutions, and return them.

    Their problems must have reference answers.
    """
    # An answer in a solution that was cut off is not its final answer.
    found = grader.extract(("" if s.finish == "length" else s.text for s in solutions), answer_fallback)
    verdicts = grader.grade((s.answer, answer) for s, (answer, _) in zip(solutions, found, strict=True))
    for solution, (answer, timed_out), verdict in zip(solutions, found, verdicts, strict=True):
        solution.predicted, solution.correct = answer, verdict is True
        solution.timed_out = timed_out or verdict is None
    return solutions


def count_unstated(
    solutions: Iterable[Solution], found: Unstated, grader: Grader, answer_fallback: Fallback = "no_answer"
) -> Iterator[Solution]:
    """Pass graded solutions on, and count those that state no answer.

    The records say so themselves, unless a fallback may have found ``predicted``: then their texts are read again.
    """
    known = answer_fallback == "no_answer"
    read = ((s, Extracted(s.predicted)) for s in solutions) if known else _reread(iter(solutions), grader)
    for s, (answer, timed_out) in read:
        found.add(s.text, stated=answer is not None or timed_out or s.timed_out or s.finish == "length")
        yield s


def _reread(solutions: Iterator[Solution], grader: Grader) -> Iterator[tuple[Solution, Extracted]]:
    while chunk := list(islice(solutions, _CHUNK)):
        yield from zip(chunk, grader.extract(s.text if s.predicted else "" for s in chunk), strict=True)
