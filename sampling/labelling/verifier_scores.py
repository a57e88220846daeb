"""Label steps with the values of process reward models.

Another model can learn from these labels.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import fmean
from typing import Any

from sampling.labelling.base import LabelProblem, Stage, StepLabeller
from stepverify.records import InputError, Solution, StepLabel


class VerifierScores(StepLabeller):
    """Label steps with process reward models in place of people.

    Their values are the labels (Lightman et al. 2023, section 4): a smaller model can learn those of a larger one.

    Args:
        verifier: name of the scores, which ``sampling score`` gave the solutions; of several, the means are the labels.
        max_solutions: label only this many solutions of each problem, the first ones; None labels all.
    """

    def __init__(self, verifier: str | list[str], max_solutions: int | None = None) -> None:
        if max_solutions is not None and max_solutions < 1:
            raise InputError(f"max_solutions: expected >= 1 or null, got {max_solutions}")
        self.verifiers = [verifier] if isinstance(verifier, str) else verifier
        if not self.verifiers:
            raise InputError("verifier: expected a name or several")
        self.max_solutions = max_solutions

    def identity(self) -> dict[str, Any]:
        """Return the verifiers' names; their values are part of the input."""
        return {"labeller": "verifier_scores", "verifiers": self.verifiers, "max_solutions": self.max_solutions}

    @asynccontextmanager
    async def labelling(self, stage: Stage) -> AsyncIterator[LabelProblem]:
        """Copy the values to the step labels.

        Solutions that were too long for a verifier stay without labels.

        Raises:
            InputError: a solution without a value of a verifier for each step.
        """
        yield self._copy

    async def _copy(self, solutions: list[Solution]) -> None:
        for s in solutions[: self.max_solutions]:
            for name in self.verifiers:
                if name not in s.scores or len(s.scores[name]) not in (0, len(s.steps)):
                    raise InputError(f"solution {s.id}: no score by {name!r} with a value for each step")
            values = [s.scores[name] for name in self.verifiers]
            if all(values):
                s.step_labels = [StepLabel(value=fmean(each)) for each in zip(*values, strict=True)]
