"""Read flat files of rated solutions without the problems' texts.

For example, decoded and deduplicated annotations of PRM800K.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepverify.readers.base import Reader, entry, one_a_step, optional, texts
from stepverify.readers.math import math_id
from stepverify.readers.released import Released, Step, rated
from stepverify.readers.tables import rows
from stepverify.records import InputError, Problem


class RatedSolutions(Released):
    """Read rows ``{problem_id, steps, ratings}`` and join them with their problems.

    A path ends at its first -1. A null rating is no label; neutral stays 0, see
    :class:`stepverify.data.targets.StepTargets`. An ``unlabelled_tail`` (text after the rated steps) is counted and not
    read; other keys are ignored.

    Args:
        path: a JSON Lines file (``.gz`` too), or a Hub id.
        problems: reader of the problems; ``problem_id`` is the id of one, or the ``unique_id`` of a MATH problem.
            Solutions of other problems are left out.
        split: split of a Hub dataset.
        common: arguments of ``Released``: limit, exclude, math500, multiline, strict, fold, validation_fraction.
    """

    def __init__(self, path: str, problems: Reader, split: str = "train", **common: Any) -> None:
        super().__init__(**common)
        self.path, self.split, self.join = path, split, problems

    def _found(self) -> Iterator[tuple[Problem, list[Step], dict[str, Any]]]:
        known = {problem.id: problem for problem in self.join.problems()}
        for where, data in rows(self.path, self.split):
            name, steps = entry(where, data, "problem_id", str), texts(where, data, "steps")
            labels = [
                rated(f"{where}: step {i}", r) for i, r in enumerate(one_a_step(where, data, "ratings", len(steps)))
            ]
            problem = known.get(name) or known.get(math_id(name))
            if problem is None:
                if self.strict:
                    raise InputError(
                        f"{where}: key 'problem_id': {name!r} is none of the {len(known)} problems of "
                        f"{type(self.join).__name__}"
                    )
                self.left_out.note("of problems without a text", where)
            elif not self._refused(where, problem.problem):
                if optional(where, data, "unlabelled_tail", str):
                    self.noted.note("tails without a rating", where)
                yield problem, self._path(where, zip(steps, labels, strict=True)), {}
