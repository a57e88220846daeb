"""Read step labels in the format of OpenRLHF's process reward model trainer.

A placeholder token follows every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepverify.readers.base import Reader, entry
from stepverify.readers.borders import Borders, NoBorder, unnumbered
from stepverify.readers.released import Released, Step, digest, valued
from stepverify.readers.tables import rows
from stepverify.records import InputError, Problem, StepLabel


class OpenRLHF(Released):
    """Read rows ``{input, value}``: ``value`` has a label per placeholder in ``input``.

    Each row is one solution. ``input`` is the problem, then ``Step 1: … ки``, ``Step 2: … ки``. A label is ``+`` or
    ``-`` (``--reward_tokens``; a rating of 1 or -1), or a probability in [0, 1]. The numbers are removed from the
    steps. Other keys are ignored. Problems have the id ``openrlhf/<digest of the text>``.

    Args:
        path: a JSON Lines file (``.gz`` too), or a Hub id such as ``zhuzilin/Math-Shepherd``.
        split: split of a Hub dataset.
        name: configuration of a Hub dataset, if it has several.
        input_key: key of the texts (``--input_key``).
        label_key: key of the labels (``--label_key``).
        placeholder: token after every step (``--placeholder_token``).
        positive: label of a correct step.
        negative: label of an incorrect step.
        problems: readers of the problems; needed if no ``Step 1:`` marks the first step, or the problem has one too.
        common: arguments of ``Released``: limit, exclude, math500, multiline, strict, fold, validation_fraction.
    """

    def __init__(
        self, path: str, split: str = "train", name: str | None = None, input_key: str = "input",
        label_key: str = "value", placeholder: str = "ки", positive: str = "+", negative: str = "-",
        problems: list[Reader] | None = None, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(**common)
        self.path, self.split, self.name = path, split, name
        self.input_key, self.label_key, self.placeholder = input_key, label_key, placeholder.strip()
        self.ratings = {positive: 1, negative: -1}
        self.borders = Borders(problems)

    def _found(self) -> Iterator[tuple[Problem, list[Step], dict[str, Any]]]:
        for where, data in rows(self.path, self.split, self.name):
            *pieces, tail = entry(where, data, self.input_key, str).split(self.placeholder)
            given = entry(where, data, self.label_key, list)
            if not pieces or len(given) != len(pieces):
                raise InputError(
                    f"{where}: key '{self.label_key}': expected {len(pieces)} labels, one for each placeholder "
                    f"{self.placeholder!r} in '{self.input_key}', got {len(given)}"
                )
            labels = [self._label(f"{where}: key '{self.label_key}[{i}]'", label) for i, label in enumerate(given)]
            try:
                text, first = self.borders.split(pieces[0])
            except NoBorder as reason:
                if self.strict:
                    raise InputError(f"{where}: key '{self.input_key}': {pieces[0]!r:.80} {reason}") from None
                self.left_out.note(f"rows {reason}", where)
                continue
            if not self._refused(where, text):
                if tail.strip():
                    self.noted.note("texts after the last placeholder, not read", where)
                steps = [first, *(unnumbered(i, piece) for i, piece in enumerate(pieces[1:], start=2))]
                problem = Problem(id=f"openrlhf/{digest(text)}", problem=text)
                yield problem, self._each(where, zip(steps, labels, strict=True)), {}

    def _label(self, where: str, label: Any) -> StepLabel:
        if isinstance(label, str):
            if label.strip() not in self.ratings:
                raise InputError(f"{where}: expected one of {[*self.ratings]} or a probability, got {label!r:.80}")
            return StepLabel(rating=self.ratings[label.strip()])
        return valued(where, label)
