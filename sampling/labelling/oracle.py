"""The truth of synthetic problems."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sampling.labelling.base import LabelProblem, Stage, StepLabeller
from stepverify.readers import synthetic
from stepverify.records import InputError, Solution, StepLabel


class SyntheticOracle(StepLabeller):
    """Exact verdicts on the steps of synthetic problems, to measure other labels and verifiers against."""

    def identity(self) -> dict[str, Any]:
        """The oracle has no settings."""
        return {"labeller": "synthetic_oracle"}

    @asynccontextmanager
    async def labelling(self, stage: Stage) -> AsyncIterator[LabelProblem]:
        """Judge every step."""
        yield _judge


async def _judge(solutions: list[Solution]) -> None:
    for s in solutions:
        if "modulus" not in s.meta:
            raise InputError(
                f"solution {s.id}: not of a synthetic problem (no meta.modulus), the oracle cannot judge it"
            )
        correct = synthetic.verdicts(s.problem, s.steps, s.meta["modulus"])
        s.step_labels = [StepLabel(rating=1 if r else -1) for r in correct]
