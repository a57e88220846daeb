r"""Read MATH (Hendrycks et al. 2021): competition problems with worked solutions.

The solutions end in ``\boxed{answer}``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepverify.answers import boxed_answer
from stepverify.readers.base import Fold, Reader, entry, in_fold, lines, optional, take
from stepverify.readers.released import ProblemFilter
from stepverify.readers.tables import rows
from stepverify.records import InputError, Problem


class MATH(Reader):
    """Read MATH from a local file or the Hub.

    Any split works, including that of PRM800K (12,000 problems and MATH-500). A row has ``problem`` and ``solution``;
    ``answer``, ``level``, ``type`` or ``subject`` and ``unique_id`` are read if present. The steps are the lines of the
    solution. A problem that has neither an ``answer`` nor a boxed answer is left out.

    Args:
        path: a JSON Lines file (``.gz`` too), or a Hub id such as ``HuggingFaceH4/MATH-500``.
        split: split of a Hub dataset, also used in the ids of problems without ``unique_id``.
        name: configuration of a Hub dataset, if it has several.
        start: number of problems to skip.
        limit: number of problems to read at most.
        shuffle: seed to shuffle the problems: in a file sorted by subject the first problems are all of one subject.
        exclude: leave out problems that occur in one of these readers.
        fold: part of these problems; they are split by a hash of their id, as in ``Solutions``.
        validation_fraction: share of the problems in the validation fold.
    """

    def __init__(
        self, path: str, split: str = "train", name: str | None = None,
        start: int = 0, limit: int | None = None, shuffle: int | None = None, exclude: list[Reader] | None = None,
        fold: Fold = "all", validation_fraction: float = 0.1,
    ) -> None:  # fmt: skip
        self.path, self.split, self.name = path, split, name
        self.start, self.limit, self.shuffle = start, limit, shuffle
        self.guard = ProblemFilter(exclude)
        self.fold, self.validation_fraction = fold, validation_fraction

    def problems(self) -> Iterator[Problem]:
        """Yield problems with id ``math/<unique_id>`` or ``math/<split>/<row>``.

        For example ``math/train/algebra/24``.
        """
        self.left_out.clear()
        every = enumerate(rows(self.path, self.split, self.name))
        for row, (where, data) in take(every, self.start, self.limit, self.shuffle):
            problem = self._problem(row, where, data)
            if not in_fold(problem.id, self.fold, self.validation_fraction):
                continue
            reason = self.guard.reason(problem.problem) or (None if problem.answer else "without an answer")
            if reason:
                self.left_out.note(reason, where)
            else:
                yield problem

    def _problem(self, row: int, where: str, data: Any) -> Problem:
        text, worked = (entry(where, data, key, str) for key in ("problem", "solution"))
        unique = optional(where, data, "unique_id", str) or f"{self.split}/{row}"
        answer = optional(where, data, "answer", str) or boxed_answer(worked)
        subject = optional(where, data, "subject", str) or optional(where, data, "type", str)
        meta = {"level": _level(where, data.get("level")), "subject": subject}
        return Problem(
            id=math_id(unique), problem=text.strip(), answer=answer, steps=lines(worked),
            meta={key: value for key, value in meta.items() if value is not None},
        )  # fmt: skip


def math_id(unique_id: str) -> str:
    """Convert a ``unique_id`` to a problem id.

    ``train/algebra/24.json`` is ``math/train/algebra/24``.
    """
    return f"math/{unique_id.removesuffix('.json')}"


def _level(where: str, level: Any) -> int | None:
    """Parse a level: 1 to 5, or ``Level 5``; None for ``?``."""
    number = str(level).removeprefix("Level ")
    if level is None or number == "?":
        return None
    if not number.isdecimal():
        raise InputError(f"{where}: key 'level': expected 'Level 1' to 'Level 5' or a number, got {level!r:.80}")
    return int(number)
