"""What the label stage knows of step labellers."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampling.runtime.progress import Progress
from stepverify.answers import Grader
from stepverify.records import Solution

LabelProblem = Callable[[list[Solution]], Awaitable[None]]
"""Labels the steps of all solutions of one problem, in place."""


@dataclass(frozen=True)
class Stage:
    """What a labeller works with.

    Attributes:
        input: the folder of solutions; None where they come from a reader.
        output: the stage's folder; a labeller keeps what it has to remember in a folder of its own in there.
        grader: compares answers.
        pool: one thread, in which they are compared.
        progress: of the stage, to count tokens.
    """

    input: Path | None
    output: Path
    grader: Grader
    pool: Executor
    progress: Progress

    async def grade(self, pairs: Iterable[tuple[str | None, str | None]]) -> list[bool | None]:
        """Compare (gold, predicted) pairs, while other coroutines go on."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, self.grader.grade, list(pairs))


class StepLabeller(ABC):
    """Labels the steps of solutions."""

    @property
    def max_problems(self) -> int:
        """Problems that are worked on at the same time."""
        return 64

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what decides the labels, for the manifest."""

    @abstractmethod
    def labelling(self, stage: Stage) -> AbstractAsyncContextManager[LabelProblem]:
        """Open a run: yield the coroutine function that sets ``step_labels`` of a problem's graded solutions.

        It is called for many problems concurrently. Leaving the context keeps what is finished, whatever ends it.
        """

    def summary(self) -> dict[str, Any]:
        """Return counts for the stage's summary, after a run."""
        return {}
