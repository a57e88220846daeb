"""Label steps with the values of a process reward model.

Another model can learn from these labels.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sampling.labelling.base import LabelProblem, Stage, StepLabeller
from stepverify.records import InputError, Solution, StepLabel


class VerifierScores(StepLabeller):
    """Label steps with a process reward model in place of people.

    Its values are the labels (Lightman et al. 2023, section 4).

    Args:
        verifier: name of its scores, which ``sampling score`` gave the solutions.
        max_solutions: label only this many solutions of each problem, the first ones; None labels all.
    """

    def __init__(self, verifier: str, max_solutions: int | None = None) -> None:
        if max_solutions is not None and max_solutions < 1:
            raise InputError(f"max_solutions: expected >= 1 or null, got {max_solutions}")
        self.verifier, self.max_solutions = verifier, max_solutions

    def identity(self) -> dict[str, Any]:
        """Return the verifier's name; its values are part of the input."""
        return {"labeller": "verifier_scores", "verifier": self.verifier, "max_solutions": self.max_solutions}

    @asynccontextmanager
    async def labelling(self, stage: Stage) -> AsyncIterator[LabelProblem]:
        """Copy the values to the step labels.

        Solutions that were too long to be scored stay without labels.

        Raises:
            InputError: a solution without a value of the verifier for each step.
        """
        yield self._copy

    async def _copy(self, solutions: list[Solution]) -> None:
        for s in solutions[: self.max_solutions]:
            values = s.scores.get(self.verifier)
            if values is None or len(values) not in (0, len(s.steps)):
                raise InputError(f"solution {s.id}: no score by {self.verifier!r} with a value for each step")
            if values:
                s.step_labels = [StepLabel(value=value) for value in values]
