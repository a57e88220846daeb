"""Sample with replicas of an engine, in actors of a Ray cluster or of this machine."""

from __future__ import annotations

from typing import Any

from sampling.engines.base import Completion, Engine, Request, SamplingOptions, SummedUsage, Usage
from sampling.runtime.dispatch import prefix_keys
from sampling.runtime.replicas import Failed, Lethal, Number, Replicas, check_number


class RayEngine(Engine):
    """Sample with replicas of an engine in Ray actors, as one engine.

    Records are those of the engine alone; the order in which they come is not. A request goes to the replica that has
    sampled its beginning, unless another has less to do; one whose replica dies is asked again.

    Args:
        engine: the engine; each replica loads it for itself.
        replicas: number of them; ``auto`` has as many as the cluster's GPUs, or else its CPUs, allow.
        resources: of each replica: ``num_gpus`` (1 where there is any; a tensor-parallel engine's number, on one node),
            ``num_cpus`` (1), and custom resources by name.
        address: of a Ray cluster; ``auto`` finds the one this machine belongs to; None starts Ray on this machine.
        failed: what becomes of a request that has ended four replicas, the last two alone: ``error`` ends the run,
            ``skip`` leaves it out, counted.

    Raises:
        InputError: an impossible number of replicas.
    """

    def __init__(
        self, engine: Engine, replicas: Number = "auto", resources: dict[str, float] | None = None,
        address: str | None = None, failed: Failed = "error",
    ) -> None:  # fmt: skip
        check_number(replicas)
        self.engine, self.model, self.failed = engine, engine.model, failed
        self._read = SummedUsage()
        self.usage: Usage | None = None if engine.usage is None else self._read.total
        self._replicas = Replicas(
            engine, f"{type(engine).__name__} of {engine.model}", engine.capacity, replicas, resources, address,
            self._read.update, "tokens", lambda completions: sum(c.num_tokens for c in completions),
        )  # fmt: skip

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """Return the completions that keep all replicas busy."""
        return self._replicas.number * self.engine.capacity

    @property
    def caches_prefixes(self) -> bool:  # type: ignore[override]
        """Tell whether the engine caches prefixes; a replica has those of the requests that it was given."""
        return self.engine.caches_prefixes

    @property
    def num_parameters(self) -> int | None:  # type: ignore[override]
        """Return the number of parameters of the engine's model."""
        return self.engine.num_parameters

    @property
    def tokenizer(self) -> Any:
        """Return the tokenizer of the engine."""
        return self.engine.tokenizer

    def identity(self) -> dict[str, Any]:
        """Return the identity of the engine: replicas change no record."""
        return self.engine.identity()

    def status(self) -> str:
        """Return the number of replicas, of those that died, and the tokens a second of each."""
        return self._replicas.status()

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        """Return the completions of a request, from one of the replicas."""
        try:
            return await self._replicas.call(request.key, request.n, prefix_keys(request), "complete", request, options)
        except Lethal:
            if self.failed == "error":
                raise
            return [Completion([], "", "refused")] * request.n

    async def aclose(self) -> None:
        """End the replicas."""
        await self._replicas.aclose()
