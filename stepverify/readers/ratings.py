"""Read solutions rated by people on the sheets of ``sampling select``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from msgspec.structs import replace

from stepverify.jsonl import read_located
from stepverify.readers.base import Fold, Reader, in_fold, take
from stepverify.readers.released import ProblemFilter
from stepverify.records import InputError, Problem, RatingSheet, Solution, StepLabel


class HumanRatings(Reader):
    """Read completed rating sheets as solutions with step labels.

    A sheet without any rating is left out and counted.

    Args:
        path: the folder of ``sampling select``, or a file of ``RatingSheet`` lines.
        solutions: reader of the solutions that the sheets were made from. It supplies answers, outcome labels and
            scores, and steps that were changed during rating are detected; without it a solution has only what its
            sheet holds.
        fold: part of the problems; they are split by a hash of their id, so no problem is in two folds.
        validation_fraction: share of the problems in the validation fold.
        limit: number of solutions to read at most.
        exclude: leave out sheets of problems that occur in one of these readers.
    """

    def __init__(
        self, path: str, solutions: Reader | None = None,
        fold: Fold = "all", validation_fraction: float = 0.1, limit: int | None = None,
        exclude: list[Reader] | None = None,
    ) -> None:  # fmt: skip
        self.path, self.source, self.limit, self.guard = path, solutions, limit, ProblemFilter(exclude)
        self.fold, self.validation_fraction = fold, validation_fraction

    def problems(self) -> Iterator[Problem]:
        """Yield each problem that occurs in the sheets once."""
        self.left_out.clear()
        seen = set()
        for _, sheet in self._sheets():
            if sheet.problem_id not in seen:
                seen.add(sheet.problem_id)
                yield Problem(id=sheet.problem_id, problem=sheet.problem, answer=sheet.answer)

    def solutions(self) -> Iterator[Solution]:
        """Yield the rated solutions in the order of the sheets.

        Raises:
            InputError: a bad rating; an id that occurs twice; a sheet that is not from ``solutions``, or has other
                steps than there.
        """
        yield from take(self._rated(), 0, self.limit)

    def _sheets(self) -> Iterator[tuple[str, RatingSheet]]:
        """Yield ``(file:line, sheet)`` of the fold."""
        for where, sheet in read_located(self.path, RatingSheet):
            if not in_fold(sheet.problem_id, self.fold, self.validation_fraction):
                continue
            if reason := self.guard.reason(sheet.problem):
                self.left_out.note(reason, where)
            else:
                yield where, sheet

    def _rated(self) -> Iterator[Solution]:
        originals = self._originals()
        self.left_out.clear()  # counts of the first reading
        for where, sheet in self._sheets():
            if not sheet.rated:
                self.left_out.note("without a rating", where)
                continue
            if self.source:
                solution = self._unchanged(where, sheet, originals.get(sheet.id))
            else:
                solution = Solution(
                    id=sheet.id, problem_id=sheet.problem_id, problem=sheet.problem, answer=sheet.answer,
                    steps=sheet.steps,
                )  # fmt: skip
            labels = [None if rating is None else StepLabel(rating=rating) for rating in sheet.ratings]
            yield replace(solution, step_labels=labels, meta=solution.meta | sheet.meta)

    def _originals(self) -> dict[str, Solution]:
        if self.source is None:
            return {}
        wanted = {sheet.id for _, sheet in self._sheets() if sheet.rated}
        return {solution.id: solution for solution in self.source.solutions() if solution.id in wanted}

    def _unchanged(self, where: str, sheet: RatingSheet, original: Solution | None) -> Solution:
        if original is None:
            raise InputError(f"{where}: key 'id': {sheet.id!r} is no solution of {type(self.source).__name__}")
        if sheet.problem_id != original.problem_id:
            raise InputError(f"{where}: key 'problem_id': {sheet.problem_id!r}, originally {original.problem_id!r}")
        for i, (now, before) in enumerate(zip_longest(sheet.steps, original.steps)):
            if now != before:
                raise InputError(f"{where}: key 'steps[{i}]': {now!r:.80}, originally {before!r:.80}")
        return original
