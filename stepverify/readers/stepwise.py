"""Read TRL's stepwise supervision format.

TRL had a trainer of process reward models until release 1.13.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stepverify.readers.base import entry, one_a_step, texts
from stepverify.readers.released import Released, Step, digest, valued
from stepverify.readers.tables import Columns, rows
from stepverify.records import Problem, StepLabel


class Stepwise(Released):
    """Read rows ``{prompt, completions, labels}``, with one label per completion.

    Each row is one solution, each completion a step. A label is true or false (a rating of 1 or -1), or a probability
    in [0, 1] that the step is correct, which :class:`stepverify.data.targets.StepTargets` converts to a target.
    Problems have the id ``stepwise/<digest of the prompt>``.

    Args:
        path: a JSON Lines file (``.gz`` too), JSON array, CSV or Parquet file, or a Hub id such as
            ``trl-lib/math_shepherd``.
        split: split of a Hub dataset.
        name: configuration of a Hub dataset, if it has several.
        revision: branch, tag or commit of a Hub dataset.
        columns: their column → our field, ``{question: prompt, steps: completions}``.
        common: arguments of ``Released``: limit, exclude, math500, multiline, strict, fold, validation_fraction.
    """

    def __init__(
        self, path: str, split: str = "train", name: str | None = None, revision: str | None = None,
        columns: dict[str, str] | None = None, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(**common)
        self.path, self.split, self.name, self.revision, self.columns = path, split, name, revision, columns
        self._fields = Columns(columns, "Stepwise", dict.fromkeys(("prompt", "completions", "labels"), True))

    def _found(self) -> Iterator[tuple[Problem, list[Step], dict[str, Any]]]:
        for where, row in rows(self.path, self.split, self.name, self.revision):
            text, steps, labels = parse(where, self._fields(where, row)[0])
            if not self._refused(where, text):
                problem = Problem(id=f"stepwise/{digest(text)}", problem=text)
                yield problem, self._each(where, zip(steps, labels, strict=True)), {}


def parse(where: str, data: Any) -> tuple[str, list[str], list[StepLabel]]:
    """Parse a row into problem, steps and labels.

    Raises:
        InputError: the row or a label has another format.
    """
    text, steps = entry(where, data, "prompt", str).strip(), texts(where, data, "completions")
    labels = one_a_step(where, data, "labels", len(steps))
    return text, steps, [parse_label(f"{where}: key 'labels[{i}]'", label) for i, label in enumerate(labels)]


def parse_label(where: str, label: Any) -> StepLabel:
    """Make a label of true or false, or of a probability.

    Raises:
        InputError: neither of them.
    """
    return StepLabel(rating=1 if label else -1) if isinstance(label, bool) else valued(where, label)


def render(problem: str, steps: Sequence[str], correct: Sequence[bool]) -> dict[str, Any]:
    """Write a solution as a row."""
    return {"prompt": problem, "completions": list(steps), "labels": list(correct)}
