"""Label the steps of synthetic problems exactly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sampling.labelling.base import LabelProblem, Stage, StepLabeller
from stepverify.readers import synthetic
from stepverify.records import InputError, Solution, StepLabel


class SyntheticOracle(StepLabeller):
    """Label the steps of synthetic problems by exact verification.

    Other labels and verifiers are measured against these.
    """

    def identity(self) -> dict[str, Any]:
        """Return the labeller's name; it has no settings."""
        return {"labeller": "synthetic_oracle"}

    @asynccontextmanager
    async def labelling(self, stage: Stage) -> AsyncIterator[LabelProblem]:
        """Label every step."""
        yield _judge


async def _judge(solutions: list[Solution]) -> None:
    for s in solutions:
        if "modulus" not in s.meta:
            raise InputError(
                f"solution {s.id}: its problem is not synthetic (no meta.modulus), so the oracle cannot label it"
            )
        correct = synthetic.verdicts(s.problem, s.steps, s.meta["modulus"])
        s.step_labels = [StepLabel(rating=1 if r else -1) for r in correct]
