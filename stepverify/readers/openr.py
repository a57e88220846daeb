"""Read OpenR's training format (Wang et al. 2024).

MATH-APS is released in it, as are PRM800K and Math-Shepherd converted by OpenR.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from stepverify.readers.base import entry
from stepverify.readers.released import Released, Step, digest, valued
from stepverify.readers.tables import rows
from stepverify.records import InputError, Problem, StepLabel

_TAGS = ("\n\n\n\n\n", "ки")
_NUMBER = re.compile(r"Step:? (\d+):\s*")
_RATINGS = {"+": 1, "-": -1}


class OpenR(Released):
    """Read rows ``{question, process, label}``, with a tag after every step.

    ``process`` are the steps, each followed by a tag, and each tag has a label. ``q`` and ``labels`` are accepted for
    ``question`` and ``label``, and a single label need not be a list. A label is ``+`` or ``-``, 1 or 0 (a rating of 1
    or -1), or a probability. A row of MATH-APS is a solution so far, with one label at its end: ``multiline: split``
    makes its lines steps, of which the last one has the label. ``Step 1:`` and ``Step: 1:`` are removed from the steps.
    A row that begins with a later step is left out, as the steps before it are unknown. In OpenR's PRM800K, neutral
    steps and unrated steps are labelled 1. Problems have the id ``openr/<digest of the question>``. The values of
    MATH-APS before thresholding at 1/2 are read by :class:`~stepverify.readers.omegaprm.OmegaPRM`.

    Args:
        path: a JSON Lines file (``.gz`` too), a ``.json`` array, or a Hub id such as ``openreasoner/MATH-APS``.
        split: split of a Hub dataset.
        step_tag: text after every step; None takes five line ends or ``ки``, whichever a row has.
        common: arguments of ``Released``: limit, exclude, math500, multiline, strict, fold, validation_fraction.
    """

    def __init__(self, path: str, split: str = "train", step_tag: str | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.path, self.split, self.step_tag = path, split, step_tag

    def _found(self) -> Iterator[tuple[Problem, list[Step], dict[str, Any]]]:
        for where, data in rows(self.path, self.split):
            asked = "q" if isinstance(data, dict) and "question" not in data and "q" in data else "question"
            text = entry(where, data, asked, str).strip()
            pieces = self._pieces(entry(where, data, "process", str).strip(" ").removeprefix(text))
            labels = _labels(where, data, len(pieces))
            found = _NUMBER.match(pieces[0].lstrip())
            if found and found[1] != "1":
                self.left_out.note("rows that begin with a later step", where)
            elif not self._refused(where, text):
                steps = [_NUMBER.sub("", piece.strip(), count=1) if _numbered(i, piece) else piece
                         for i, piece in enumerate(pieces, start=1)]  # fmt: skip
                problem = Problem(id=f"openr/{digest(text)}", problem=text)
                yield problem, self._each(where, zip(steps, labels, strict=True)), {}

    def _pieces(self, process: str) -> list[str]:
        tags = _TAGS if self.step_tag is None else (self.step_tag,)
        tag = next((tag for tag in tags if tag in process), tags[0])
        pieces = process.split(tag)
        return pieces if pieces[-1].strip() or len(pieces) == 1 else pieces[:-1]


def _numbered(number: int, piece: str) -> bool:
    found = _NUMBER.match(piece.strip())
    return found is not None and found[1] == str(number)


def _labels(where: str, data: Any, num_steps: int) -> list[StepLabel]:
    key = "labels" if "label" not in data and "labels" in data else "label"
    if not isinstance(given := data.get(key), list):
        given = [entry(where, data, key, object)]
    if len(given) != num_steps:
        raise InputError(f"{where}: key '{key}': expected {num_steps} labels, one per step, got {len(given)}")
    return [_label(f"{where}: key '{key}[{i}]'", label) for i, label in enumerate(given)]


def _label(where: str, label: Any) -> StepLabel:
    if isinstance(label, str):
        if label not in _RATINGS:
            raise InputError(f"{where}: expected '+', '-' or a number from 0 to 1, got {label!r:.80}")
        return StepLabel(rating=_RATINGS[label])
    if type(label) is int and label in (0, 1):
        return StepLabel(rating=1 if label else -1)
    return valued(where, label)
