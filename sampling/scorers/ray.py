"""Score with replicas of a scorer, in actors of a Ray cluster or of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sampling.engines.base import SummedUsage, Usage
from sampling.runtime.replicas import Number, Replicas, check_number
from sampling.scorers.base import Scorer
from sampling.scorers.wrapped import WrappedScorer
from stepverify.records import Solution

_WAITING = 2  # calls of a scorer's own concurrency that wait at a replica, so that it never waits for one


class RayScorer(WrappedScorer):
    """Score with replicas of a scorer in Ray actors, as one scorer.

    Values are those of the scorer alone. Solutions of a problem go to the replica that has read others of it, unless
    another has less to do; a call whose replica dies is made again.

    Args:
        scorer: the scorer; each replica loads it for itself, on one device unless its keys say otherwise.
        replicas: number of them; ``auto`` has as many as the cluster's GPUs, or else its CPUs, allow.
        resources: of each replica: ``num_gpus`` (1 where there is any), ``num_cpus`` (1), and custom resources by name.
        address: of a Ray cluster; ``auto`` finds the one this machine belongs to; None starts Ray on this machine.

    Raises:
        InputError: an impossible number of replicas.
    """

    def __init__(
        self, scorer: Scorer, replicas: Number = "auto", resources: dict[str, float] | None = None,
        address: str | None = None,
    ) -> None:  # fmt: skip
        check_number(replicas)
        super().__init__(scorer)
        self._read = SummedUsage()
        self._arguments = (replicas, resources, address)
        self._replicas: Replicas | None = None

    def _running(self) -> Replicas:
        # Not before it is used: the scorer may have to look for its model.
        if self._replicas is None:
            name = f"{type(self.scorer).__name__} of {Path(self.scorer.export or '').name or 'a model'}"
            limit = _WAITING * max(1, self.scorer.concurrency)
            self._replicas = Replicas(self.scorer, name, limit, *self._arguments, self._read.update, "solutions", len)
        return self._replicas

    @property
    def concurrency(self) -> int:  # type: ignore[override]
        """Return the calls that keep all replicas busy."""
        replicas = self._running()
        return replicas.number * replicas.limit

    @property
    def usage(self) -> Usage | None:  # type: ignore[override]
        """Return the tokens that all replicas have read."""
        return None if self.scorer.usage is None else self._read.total

    async def score(self, solutions: Sequence[Solution]) -> list[list[float]]:
        """Score solutions, those of one call on one replica."""
        if not solutions:
            return []
        first = solutions[0]
        return await self._running().call(
            f"{first.problem_id} ({len(solutions)} solutions)", 1, [first.problem_id], "score", list(solutions)
        )

    def status(self) -> str:
        """Return the number of replicas, of those that died, and the solutions a second of each."""
        return self._replicas.status() if self._replicas else ""

    async def aclose(self) -> None:
        """End the replicas."""
        if self._replicas is not None:
            await self._replicas.aclose()
            self._replicas = None
