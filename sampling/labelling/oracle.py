"""The truth of synthetic problems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sampling.labelling.base import Stage, StepLabeller
from stepverify.readers import synthetic
from stepverify.records import InputError, Solution, StepLabel


class SyntheticOracle(StepLabeller):
    """Exact verdicts on the steps of synthetic problems, to measure other labels and verifiers against."""

    def identity(self) -> dict[str, Any]:
        """The oracle has no settings."""
        return {"labeller": "synthetic_oracle"}

    def label(self, groups: Iterable[list[Solution]], stage: Stage) -> Iterator[list[Solution]]:
        """Judge every step."""
        for solutions in groups:
            for s in solutions:
                if "modulus" not in s.meta:
                    raise InputError(
                        f"solution {s.id}: not of a synthetic problem (no meta.modulus), the oracle cannot judge it"
                    )
                right = synthetic.verdicts(s.problem, s.steps, s.meta["modulus"])
                s.step_labels = [StepLabel(rating=1 if r else -1) for r in right]
            yield solutions
