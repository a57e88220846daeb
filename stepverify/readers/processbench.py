"""Read ProcessBench (Zheng et al. 2024): solutions with expert-labelled first errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepverify.readers.base import Reader, distinct, entry, take, texts
from stepverify.readers.released import digest
from stepverify.readers.tables import rows
from stepverify.records import InputError, Problem, Solution, StepLabel


class ProcessBench(Reader):
    """Read rows ``{id, generator, problem, steps, final_answer_correct, label}``, for evaluation only.

    ``label`` is the index of the first incorrect step, -1 if there is none: steps before it are rated 1, the step
    itself -1, and later steps are unlabelled. A problem has the id of the first row with its text,
    ``processbench/math-0``; a solution has ``meta.subset`` and ``meta.row``, ``math`` and ``math-0``.

    Args:
        path: a JSON Lines file (``.gz`` too), or a Hub id such as ``Qwen/ProcessBench``.
        split: split of a Hub dataset: ``gsm8k``, ``math``, ``olympiadbench`` or ``omnimath``.
        limit: number of solutions to read at most.
    """

    def __init__(self, path: str, split: str = "math", limit: int | None = None) -> None:
        self.path, self.split, self.limit = path, split, limit

    def problems(self) -> Iterator[Problem]:
        """Yield each problem once."""
        yield from distinct(self.solutions())

    def solutions(self) -> Iterator[Solution]:
        """Yield the solutions in file order; ``correct`` is the outcome label."""
        names: dict[str, str] = {}
        numbers: dict[str, int] = {}
        for where, data in take(rows(self.path, self.split), 0, self.limit):
            name, text = entry(where, data, "id", str), entry(where, data, "problem", str).strip()
            same = names.setdefault(digest(text), f"processbench/{name}")
            number = numbers[same] = numbers.get(same, -1) + 1
            steps, labels = _labelled(where, data)
            generator, correct = entry(where, data, "generator", str), entry(where, data, "final_answer_correct", bool)
            yield Solution.of(
                Problem(id=same, problem=text), number, steps, step_labels=labels,
                generator=generator, correct=correct, meta={"subset": name.rpartition("-")[0], "row": name},
            )  # fmt: skip


def _labelled(where: str, data: Any) -> tuple[list[str], list[StepLabel | None]]:
    steps, first = [step.strip() for step in texts(where, data, "steps")], entry(where, data, "label", int)
    if not -1 <= first < len(steps):
        raise InputError(f"{where}: key 'label': expected -1 or one of {len(steps)} steps, got {first}")
    if first == -1:
        return steps, [StepLabel(rating=1) for _ in steps]
    before: list[StepLabel | None] = [StepLabel(rating=1) for _ in steps[:first]]
    return steps, [*before, StepLabel(rating=-1), *[None] * (len(steps) - first - 1)]
