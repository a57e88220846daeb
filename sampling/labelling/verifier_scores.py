"""Step labels from a process reward model, which another one can learn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sampling.labelling.base import LabelProblem, Stage, StepLabeller
from stepverify.records import InputError, Solution, StepLabel


class VerifierScores(StepLabeller):
    """A process reward model in the place of people: its values are the labels (Lightman et al. 2023, section 4).

    Args:
        verifier: name of its scores, which the solutions have from ``sampling score``.
        max_solutions: step labels for the first so many solutions of each problem; None labels all.
    """

    def __init__(self, verifier: str, max_solutions: int | None = None) -> None:
        if max_solutions is not None and max_solutions < 1:
            raise InputError(f"max_solutions: expected >= 1 or null, got {max_solutions}")
        self.verifier, self.max_solutions = verifier, max_solutions

    def identity(self) -> dict[str, Any]:
        """The name; the values are part of the input."""
        return {"labeller": "verifier_scores", "verifier": self.verifier, "max_solutions": self.max_solutions}

    @asynccontextmanager
    async def labelling(self, stage: Stage) -> AsyncIterator[LabelProblem]:
        """Copy the values. Solutions that were too long to be scored stay without labels."""
        yield self._copy

    async def _copy(self, solutions: list[Solution]) -> None:
        for s in solutions[: self.max_solutions]:
            values = s.scores.get(self.verifier)
            if values is None or len(values) not in (0, len(s.steps)):
                raise InputError(f"solution {s.id}: no score by {self.verifier!r} with a value for each step")
            if values:
                s.step_labels = [StepLabel(value=value) for value in values]
