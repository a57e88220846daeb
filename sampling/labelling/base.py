"""Define the contract between the label stage and step labellers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sampling.runtime.batched import Batched
from sampling.runtime.merging import Merged
from sampling.runtime.progress import Progress
from stepverify.answers import Extracted, Grader
from stepverify.records import Solution

LabelProblem = Callable[[list[Solution]], Awaitable[None]]
"""Label the steps of all solutions of one problem, in place."""


@dataclass(frozen=True)
class Stage:
    """Hold what the label stage provides to a labeller.

    Attributes:
        input: the folder of solutions; None if they come from a reader.
        output: the stage's folder; a labeller keeps its own records in a subfolder.
        grader: extracts and compares answers.
        pool: the one thread in which the grader is called.
        progress: progress of the stage, to count tokens.
        merged: shards whose solutions have their labels already; a labeller copies what it keeps beside them.
    """

    input: Path | None
    output: Path
    grader: Grader
    pool: Executor
    progress: Progress
    merged: Merged = Merged()  # noqa: RUF009 - frozen

    async def extract(self, texts: Iterable[str]) -> list[Extracted]:
        """Extract the final answers of texts, while other coroutines run."""
        return await self._extract(texts)

    async def grade(self, pairs: Iterable[tuple[str | None, str | None]]) -> list[bool | None]:
        """Compare (gold, predicted) pairs, while other coroutines run."""
        return await self._grade(pairs)

    @cached_property
    def _extract(self) -> Batched[str, Extracted]:
        return Batched(self.grader.extract, self.pool)

    @cached_property
    def _grade(self) -> Batched[tuple[str | None, str | None], bool | None]:
        return Batched(self.grader.grade, self.pool)


class StepLabeller(ABC):
    """Label the steps of solutions."""

    @property
    def max_problems(self) -> int:
        """Return how many problems are labelled at the same time."""
        return 64

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what decides the labels, for the manifest."""

    @abstractmethod
    def labelling(self, stage: Stage) -> AbstractAsyncContextManager[LabelProblem]:
        """Open a run, and yield the coroutine function that labels a problem.

        It sets ``step_labels`` of a problem's graded solutions, and is called for many problems concurrently. Leaving
        the context keeps what is finished, whatever the reason.
        """

    def summary(self) -> dict[str, Any]:
        """Return counts for the stage's summary, after a run."""
        return {}
