"""Label outcomes: grade the final answers of solutions."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from sampling.labelling.answer_fallback import Unstated
from sampling.runtime.problem_shard import ProblemShard
from sampling.runtime.seeds import derive_seed
from stepverify.answers import Extracted, Fallback, Grader
from stepverify.jsonl import dump_line, read_records
from stepverify.keys import KeyNumbers, KeySet
from stepverify.readers import Reader
from stepverify.readers.base import once
from stepverify.records import InputError, Solution

_CHUNK = 256  # solutions read again at a time


class Survey:
    """Hold what a first reading of solutions tells, in some 40 bytes a problem.

    Args:
        source: folder or file of solutions, or a reader.
        shard: problems of this run; all are checked.

    Attributes:
        total: number of solutions of the shard.
        digest: of all solutions in order, which identifies those of a reader.

    Raises:
        InputError: no solution, a problem without a reference answer, or solutions of one problem with different
            reference answers.
    """

    def __init__(self, source: Path | Reader, shard: ProblemShard) -> None:
        self.source, self.total = source, 0
        self._correct, self._incorrect = KeySet(), KeySet()  # by the verdicts that they came with
        self._problems, self._sizes, self._answers = KeyNumbers(), array("I"), array("Q")
        sha = hashlib.sha256()
        for solution in _read(source):
            if isinstance(source, Reader):
                sha.update(dump_line(solution).encode())
            self._note(solution)
            if solution.problem_id in shard:
                self.total += 1
                if solution.correct is not None:
                    (self._correct if solution.correct else self._incorrect).add(solution.id)
        self.digest = sha.hexdigest()
        if not self._sizes:
            left_out = f"; left out: {source.left_out}" if isinstance(source, Reader) and source.left_out else ""
            raise InputError(f"{_name(source)}: no solution was read{left_out}")

    def _note(self, solution: Solution) -> None:
        where = f"{_name(self.source)}: solution {solution.id}"
        if not solution.answer:
            raise InputError(f"{where}: its problem has no reference answer ('answer') to grade it by")
        answer, number = derive_seed(solution.answer), self._problems.number(solution.problem_id)
        if number == len(self._sizes):
            self._sizes.append(0)
            self._answers.append(answer)
        elif self._answers[number] != answer:
            first = next(s for s in _read(self.source) if s.problem_id == solution.problem_id)
            raise InputError(f"{where}: answer {solution.answer!r}, but {first.id} has {first.answer!r}")
        self._sizes[number] += 1

    @property
    def has_verdicts(self) -> bool:
        """Tell whether any solution came with a verdict."""
        return bool(self._correct or self._incorrect)

    def changes(self, solution: Solution) -> bool:
        """Tell whether a graded solution came with the other verdict."""
        return solution.id in (self._incorrect if solution.correct else self._correct)

    def size(self, problem_id: str) -> int:
        """Return how many solutions a problem has; 0 for another one."""
        number = self._problems.number(problem_id)
        return self._sizes[number] if number < len(self._sizes) else 0

    def groups(self, wanted: Callable[[str], bool]) -> Iterator[list[Solution]]:
        """Read again, and yield all solutions of a problem once its last one was read.

        Only problems that have begun are held, so a problem's solutions should stand near each other, as stages write
        them.

        Args:
            wanted: tells by the id of a problem whether it is.

        Raises:
            InputError: the source was changed meanwhile.
        """
        begun: dict[str, list[Solution]] = {}
        for solution in _read(self.source):
            problem_id = solution.problem_id
            if wanted(problem_id):
                begun.setdefault(problem_id, []).append(solution)
                if len(begun[problem_id]) == self.size(problem_id):
                    yield begun.pop(problem_id)
        if begun:
            raise InputError(f"{_name(self.source)}: was changed while it was read; run the stage again")


def _read(source: Path | Reader) -> Iterator[Solution]:
    return once(source.solutions(), _name(source)) if isinstance(source, Reader) else read_records(source, Solution)


def _name(source: Path | Reader) -> str:
    return source.described if isinstance(source, Reader) else str(source)


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
