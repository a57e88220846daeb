"""Define the contract of scorers, which the stages use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

from sampling.engines.base import Usage, unloaded
from stepverify.adopted import Adopted
from stepverify.critique import Critique
from stepverify.objectives import Objective
from stepverify.records import Solution
from stepverify.training_problems import count_trained


class Scorer(ABC):
    """Score solutions and prefixes of solutions.

    An object is cheap until :meth:`score` is awaited, and holds no model after :meth:`aclose`; it may then be used
    again. Any number of calls may wait at the same time; a scorer batches them.

    Attributes:
        concurrency: number of calls that keep it busy.
        export: local folder of the export, which records what it was trained on; None without an export.
        adopted: calibration that the export holds, and that the values are mapped with; None without.
        objective: ``process`` or ``implicit``, a value for each step; ``outcome``, values for the final answer; None if
            unknown.
        usage: tokens read so far, and how many of these were not computed; None for scorers that do not know.
        num_parameters: parameters of the model; None if unknown. A token costs about twice as many FLOPs, without
            attention (Kaplan et al. 2020, section 2.1).
        caches_prefixes: it does not read a prefix again that it has scored, as far as there is room.
    """

    concurrency: int = 1
    export: str | None = None
    adopted: Adopted | None = None
    objective: Objective | None = None
    usage: Usage | None = None
    num_parameters: int | None = None
    caches_prefixes: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process needs: the arguments, and nothing that was loaded."""
        return unloaded(self)

    @abstractmethod
    async def score(self, solutions: Sequence[Solution]) -> list[list[float]]:
        """Score solutions, complete ones and prefixes.

        A prefix is a solution without its end: the steps so far, and ``finish="length"``, like one that was cut off. A
        process reward model gives the values of its steps, which equal those of every solution that begins with it. An
        outcome verifier gives the value at the prefix's final token, without the end of the text; if it was trained at
        every token (``per_token``), this is the probability of a correct final answer from there.

        Args:
            solutions: solutions of any problems. Place those of one problem next to each other: they share the
                computation of what they have in common.

        Returns:
            For each solution its values in [0, 1]: one per step, one per token or only the final one. Empty for a
            solution without a step, or too long to be read whole.

        Raises:
            InputError: the verifier cannot be loaded, or a device failed.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what decides the values, for the stage's manifest.

        Nothing that only changes the speed is included.

        Raises:
            InputError: there is no verifier to load.
        """

    def count_trained(self, problems: Mapping[str, str]) -> dict[str, Any] | None:
        """Count the problems that the verifier was trained on; None if it does not say which.

        Args:
            problems: digests of the problems' texts → ids.

        Returns:
            As :func:`stepverify.training_problems.count_trained`.
        """
        return count_trained(self.export, problems) if self.export else None

    def token_texts(self, solution: Solution) -> list[str]:
        """Return the text of each value's token; empty without token values."""
        return []

    def count_tokens(self, solution: Solution) -> int | None:
        """Count the tokens of problem and solution that the scorer reads.

        0 for a solution that has no values; None if unknown.
        """
        return None

    def critiques(self, solution: Solution) -> list[Critique]:
        """Return what the scorer has written about a solution, once, after scoring it.

        Empty for a scorer that only reads.
        """
        return []

    def sampled_tokens(self, solution: Solution) -> list[int]:
        """Return the tokens that each value has taken.

        Empty for a scorer that only reads, or if they are unknown.

        A search keeps them, since :meth:`count_tokens` cannot know what was sampled in an earlier run.
        """
        return []

    def recall(self, solution: Solution, tokens: Sequence[int]) -> None:  # noqa: B027 - only those that sample
        """Take over the tokens that the values of a solution took in an earlier run."""

    def counted(self) -> dict[str, int]:
        """Return counts of this run for a summary, besides the tokens read."""
        return {}

    def keep_prefixes(self) -> None:  # noqa: B027 - a scorer may keep nothing
        """Keep what is computed for prefixes from call to call, if the scorer can.

        A search says so before its first call: it scores prefixes that grow.
        """

    def status(self) -> str:
        """Return what a progress line says of the scorer besides what it has read; empty for nothing."""
        return ""

    async def aclose(self) -> None:  # noqa: B027 - a scorer may have nothing to close
        """End processes and free memory; waiting calls are cancelled."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
