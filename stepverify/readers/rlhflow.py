"""Read RLHFlow's step labels (Xiong et al. 2024), given as conversations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepverify.readers.base import Reader, entry
from stepverify.readers.borders import Borders, NoBorder, unnumbered
from stepverify.readers.released import Released, Step, digest
from stepverify.readers.tables import rows
from stepverify.records import InputError, Problem, StepLabel

_RATINGS = {"+": 1, "-": -1}


class RLHFlow(Released):
    """Read rows ``{conversations}``: user turns are steps, assistant turns their labels.

    The first user turn is the problem and the first step; a label is ``+`` or ``-`` and becomes a rating of 1 or -1. In
    Mistral-PRM-Data steps are numbered, ``Step 1:``, which marks the end of the problem and is removed. In
    Deepseek-PRM-Data they are not: give ``problems``, or those rows are left out. Problems have the id
    ``rlhflow/<digest of the text>``.

    Args:
        path: a JSON Lines file (``.gz`` too), or a Hub id such as ``RLHFlow/Mistral-PRM-Data``.
        split: split of a Hub dataset.
        problems: readers of the problems: for the released data, the training problems of GSM8K and MATH.
        common: arguments of ``Released``: limit, exclude, math500, multiline, strict, fold, validation_fraction.
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
    """Yield text and label of each pair of turns."""
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
        # Mistral's samples may end with Math-Shepherd's step tag.
        yield step.removesuffix("ки").strip(), StepLabel(rating=_RATINGS[label])
