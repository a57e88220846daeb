"""Read Math-Shepherd (Wang et al. 2023): automatic step labels, as released."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stepverify.readers.base import Reader, entry, optional
from stepverify.readers.borders import Borders, NoBorder, unnumbered
from stepverify.readers.released import Released, Step, digest
from stepverify.readers.tables import rows
from stepverify.records import InputError, Problem, StepLabel

TAG = "ки"
_BORDERS = Borders()


class MathShepherd(Released):
    """Read rows ``{input, label, task}`` with numbered and tagged steps.

    Each row is one solution.

    ``input`` is the problem, then ``Step 1: … ки``, ``Step 2: … ки`` on lines of their own; ``label`` has a ``+`` or
    ``-`` for each tag. The numbers are removed from the steps. Labels are hard and become ratings 1 and -1; the authors
    use the labels after the first incorrect step too. Problems have the id ``math_shepherd/<digest of the text>``. A
    row is left out if its first step cannot be located because the problem has a ``Step 1:`` too.

    Args:
        path: a JSON Lines file (``.gz`` too), or a Hub id such as ``peiyi9979/Math-Shepherd``.
        split: split of a Hub dataset.
        problems: readers of the problems, which locate the first step in any case.
        common: arguments of ``Released``: limit, exclude, math500, multiline, strict, fold, validation_fraction.
    """

    def __init__(
        self, path: str, split: str = "train", problems: list[Reader] | None = None, **common: Any
    ) -> None:  # fmt: skip
        super().__init__(**common)
        self.path, self.split, self.borders = path, split, Borders(problems)

    def _found(self) -> Iterator[tuple[Problem, list[Step], dict[str, Any]]]:
        for where, data in rows(self.path, self.split):
            try:
                text, steps, labels = parse(where, data, self.borders)
            except _Format as error:
                if self.strict:
                    raise InputError(str(error)) from None
                self.left_out.note(error.reason, where)
                continue
            if not self._refused(where, text):
                task = optional(where, data, "task", str)
                problem = Problem(id=f"math_shepherd/{digest(text)}", problem=text, meta={"task": task} if task else {})
                yield problem, self._each(where, zip(steps, labels, strict=True)), {}


class _Format(InputError):
    """Report a row of texts in another format; ``reason`` is counted."""

    reason = "rows of another format"


def parse(where: str, data: Any, borders: Borders = _BORDERS) -> tuple[str, list[str], list[StepLabel]]:
    """Parse a row into problem, steps without their numbers, and labels.

    Raises:
        InputError: the row has another format.
    """
    told, labelled = (entry(where, data, key, str) for key in ("input", "label"))
    *pieces, tail = told.split(TAG)
    if not pieces or tail.strip():
        raise _Format(f"{where}: key 'input': expected a problem and 'Step 1: … {TAG}', got {told[-80:]!r}")
    at = 0
    labels = []
    for piece in pieces:
        here = labelled[at : at + len(piece) + 1]
        if here not in (piece + "+", piece + "-"):
            raise _Format(f"{where}: key 'label': expected the input with + or - for {TAG}, got {labelled!r:.80}")
        labels.append(StepLabel(rating=1 if here[-1] == "+" else -1))
        at += len(here)
    try:
        problem, first = borders.split(pieces[0])
    except NoBorder as reason:
        error = _Format(f"{where}: key 'input': expected a problem and 'Step 1: … {TAG}', got {told[:80]!r} {reason}")
        error.reason = f"rows {reason}"
        raise error from None
    return problem, [first, *(unnumbered(i, piece) for i, piece in enumerate(pieces[1:], start=2))], labels


def render(problem: str, steps: Sequence[str], correct: Sequence[bool]) -> dict[str, Any]:
    """Write a solution as a row."""
    texts = [f"Step {i}: {step} " for i, step in enumerate(steps, start=1)]

    def joined(tags: Sequence[str]) -> str:
        return f"{problem} " + "\n".join(text + tag for text, tag in zip(texts, tags, strict=True))

    return {"input": joined([TAG] * len(steps)), "label": joined(["+" if r else "-" for r in correct])}
