"""Read GSM8K (Cobbe et al. 2021): grade-school word problems with calculator annotations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from stepverify.readers.base import Fold, Reader, entry, in_fold, lines, take
from stepverify.readers.tables import rows
from stepverify.records import InputError, Problem

_ANNOTATION = re.compile(r"<<[^<>]*>>")
_FINAL = "####"


class GSM8K(Reader):
    """Read GSM8K from a file of the release, or from the Hub.

    The last step is the line ``#### answer``.

    Args:
        path: ``train.jsonl`` or ``test.jsonl`` of the release (``.gz`` too), or a Hub id such as ``openai/gsm8k``.
        split: split of a Hub dataset, and the part of the problem ids that distinguishes splits.
        start: number of problems to skip.
        limit: number of problems to read at most.
        shuffle: seed to shuffle the problems; None keeps the order of the file.
        fold: part of these problems; they are split by a hash of their id, as in ``Solutions``.
        validation_fraction: share of the problems in the validation fold.
        annotations: keep the calculator annotations ``<<48/2=24>>`` in the steps.
    """

    def __init__(
        self, path: str = "openai/gsm8k", split: str = "train",
        start: int = 0, limit: int | None = None, shuffle: int | None = None, annotations: bool = True,
        fold: Fold = "all", validation_fraction: float = 0.1,
    ) -> None:  # fmt: skip
        self.path, self.split, self.annotations = path, split, annotations
        self.start, self.limit, self.shuffle = start, limit, shuffle
        self.fold, self.validation_fraction = fold, validation_fraction

    def problems(self) -> Iterator[Problem]:
        """Yield problems with id ``gsm8k/<split>/<row>``.

        Rows are counted from 0 in the whole file.
        """
        every = enumerate(rows(self.path, self.split, "main"))
        for row, (where, data) in take(every, self.start, self.limit, self.shuffle):
            problem = self._problem(row, where, data)
            if in_fold(problem.id, self.fold, self.validation_fraction):
                yield problem

    def _problem(self, row: int, where: str, data: Any) -> Problem:
        question, worked = (entry(where, data, key, str) for key in ("question", "answer"))
        steps = lines(worked)
        if not steps or not steps[-1].startswith(_FINAL):
            raise InputError(f"{where}: key 'answer': no final line '{_FINAL} …' in {worked[-80:]!r}")
        if not self.annotations:
            steps = [_ANNOTATION.sub("", step) for step in steps]
        answer = steps[-1].removeprefix(_FINAL).strip()
        if not answer:
            raise InputError(f"{where}: key 'answer': nothing after '{_FINAL}'")
        return Problem(id=f"gsm8k/{self.split}/{row}", problem=question.strip(), answer=answer, steps=steps)
