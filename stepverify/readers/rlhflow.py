"""RLHFlow's step labels (Xiong et al. 2024): a conversation in which the user says a step, the assistant its label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepverify.readers.base import Reader, entry, rows
from stepverify.readers.borders import Borders, NoBorder, unnumbered
from stepverify.readers.released import Released, Step, digest
from stepverify.records import InputError, Problem, StepLabel

_RATINGS = {"+": 1, "-": -1}


class RLHFlow(Released):
    """Rows ``{conversations}``: a user turn is a step, the first one after its problem; the answer ``+`` or ``-``.

    Labels are hard and become ratings 1 and -1. In Mistral-PRM-Data a step has a number, ``Step 1:``, which tells where
    the problem ends and is no part of our steps. In Deepseek-PRM-Data it has none: give ``problems``, or those rows are
    left out. Problems have the id ``rlhflow/<digest of the text>``.

    Args:
        path: a JSON Lines file (``.gz`` too), or a hub id such as ``RLHFlow/Mistral-PRM-Data``.
        split: of a hub dataset.
        problems: readers of the problems, GSM8K's and MATH's training problems for the released data.
        common: as :class:`~stepverify.readers.released.Released`.
    """

    def __init__(self, path: str, split: str = "train", problems: list[Reader] | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.path, self.split, self.borders = path, split, Borders(problems)

    def _found(self) -> Iterator[tuple[Problem, list[Step], dict[str, Any]]]:
        for where, data in rows(self.path, self.split):
            turns = list(_turns(where, data))
            try:
                text, first = self.borders.split(turns[0][0])
            except NoBorder as reason:
                if self.strict:
                    raise InputError(
                        f"{where}: key 'conversations[0].content': {turns[0][0]!r:.80} {reason}; give 'problems'"
                    ) from None
                self.left_out.note(f"rows {reason} (give `problems`)", where)
                continue
            if not self._refused(where, text):
                steps = [first, *(unnumbered(i, step) for i, (step, _) in enumerate(turns[1:], start=2))]
                problem = Problem(id=f"rlhflow/{digest(text)}", problem=text)
                labels = [label for _, label in turns]
                yield problem, self._each(where, zip(steps, labels, strict=True)), {}


def _turns(where: str, data: Any) -> Iterator[tuple[str, StepLabel]]:
    """Text and label of each pair of turns."""
    turns = entry(where, data, "conversations", list)
    if not turns or len(turns) % 2:
        raise InputError(f"{where}: key 'conversations': expected pairs of user and assistant, got {len(turns)} turns")
    said = []
    for i, turn in enumerate(turns):
        here, role = f"{where}: conversations[{i}]", ("user", "assistant")[i % 2]
        if (found := entry(here, turn, "role", str)) != role:
            raise InputError(f"{here}: key 'role': expected '{role}', got {found!r:.80}")
        said.append(entry(here, turn, "content", str).strip())
    for i, (step, label) in enumerate(zip(said[::2], said[1::2], strict=True)):
        if label not in _RATINGS:
            raise InputError(
                f"{where}: key 'conversations[{2 * i + 1}].content': expected '+' or '-', got {label!r:.80}"
            )
        # Mistral's samples were written with Math-Shepherd's tag, which may stand at their ends.
        yield step.removesuffix("ки").strip(), StepLabel(rating=_RATINGS[label])
