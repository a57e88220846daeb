"""Base of scorers that score by another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sampling.engines.base import Usage
from sampling.scorers.base import Scorer
from stepverify.adopted import Adopted
from stepverify.critique import Critique
from stepverify.objectives import Objective
from stepverify.records import Solution


class WrappedScorer(Scorer):
    """Score by another scorer, and say of oneself what that one says.

    Args:
        scorer: the other one.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    @property
    def concurrency(self) -> int:  # type: ignore[override]
        """Return the calls that keep the scorer busy."""
        return self.scorer.concurrency

    @property
    def export(self) -> str | None:  # type: ignore[override]
        """Return the scorer's export."""
        return self.scorer.export

    @property
    def adopted(self) -> Adopted | None:  # type: ignore[override]
        """Return the calibration of the scorer's export."""
        return self.scorer.adopted

    @property
    def objective(self) -> Objective | None:  # type: ignore[override]
        """Return the scorer's objective."""
        return self.scorer.objective

    @property
    def usage(self) -> Usage | None:  # type: ignore[override]
        """Return the tokens that the scorer has read."""
        return self.scorer.usage

    @property
    def num_parameters(self) -> int | None:  # type: ignore[override]
        """Return the number of parameters of the scorer's model."""
        return self.scorer.num_parameters

    @property
    def caches_prefixes(self) -> bool:  # type: ignore[override]
        """Tell whether the scorer caches prefixes."""
        return self.scorer.caches_prefixes

    async def score(self, solutions: Sequence[Solution]) -> list[list[float]]:
        """Score solutions as the scorer does."""
        return await self.scorer.score(solutions)

    def identity(self) -> dict[str, Any]:
        """Return the scorer's identity."""
        return self.scorer.identity()

    def count_trained(self, problems: Mapping[str, str]) -> dict[str, Any] | None:
        """Count the problems that the scorer was trained on."""
        return self.scorer.count_trained(problems)

    def token_texts(self, solution: Solution) -> list[str]:
        """Return the scorer's texts of a solution's tokens."""
        return self.scorer.token_texts(solution)

    def count_tokens(self, solution: Solution) -> int | None:
        """Count tokens as the scorer does."""
        return self.scorer.count_tokens(solution)

    def critiques(self, solution: Solution) -> list[Critique]:
        """Return what the scorer has written."""
        return self.scorer.critiques(solution)

    def sampled_tokens(self, solution: Solution) -> list[int]:
        """Return the tokens that the scorer's values have taken."""
        return self.scorer.sampled_tokens(solution)

    def recall(self, solution: Solution, tokens: Sequence[int]) -> None:
        """Let the scorer take over the tokens of an earlier run."""
        self.scorer.recall(solution, tokens)

    def counted(self) -> dict[str, int]:
        """Return the scorer's counts."""
        return self.scorer.counted()

    def keep_prefixes(self) -> None:
        """Let the scorer keep prefixes."""
        self.scorer.keep_prefixes()

    def status(self) -> str:
        """Return what the scorer says of itself."""
        return self.scorer.status()

    async def aclose(self) -> None:
        """Close the scorer."""
        await self.scorer.aclose()
