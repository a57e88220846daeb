"""Label steps by the outcomes of the samples that share them. No engine is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sampling.labelling.base import LabelProblem, Stage, StepLabeller
from sampling.labelling.step_tree import build
from stepverify.records import Solution, StepLabel


class SampleCounts(StepLabeller):
    """Label each step with the correct ones among the samples that begin with it.

    A sample is itself a completion of each of its prefixes, so these are the labels of Math-Shepherd (Wang et al. 2023,
    section 3.3) that cost nothing: of n samples of the problem with the same steps so far, k are correct. Where no
    other sample begins alike, k of n is the solution's own outcome, 0 of 1 or 1 of 1; ``StepBinomial`` weighs a label
    by its n. Correct / total is unbiased as long as the samples were not chosen by outcome; for more completions of a
    prefix see ``reuse_samples`` of :class:`~sampling.labelling.Rollouts`. Duplicates count each time.
    """

    def identity(self) -> dict[str, Any]:
        """Return the labeller's name; it has no settings."""
        return {"labeller": "sample_counts"}

    @asynccontextmanager
    async def labelling(self, stage: Stage) -> AsyncIterator[LabelProblem]:
        """Count the samples at every step."""
        yield _count


async def _count(solutions: list[Solution]) -> None:
    root = build((s.id, s.steps) for s in solutions)
    for s in solutions:
        root.count(s.steps, correct=bool(s.correct))
    for s in solutions:
        s.step_labels = [StepLabel(num_correct=n.correct, num_rollouts=n.total) for n in root.follow(s.steps)]
