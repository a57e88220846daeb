"""Run replicas of a worker in Ray actors, replace those that die, and ask again for what they had in work.

The only module that imports ray.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import uuid
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any, Literal

from sampling.runtime.dispatch import Dispatcher
from sampling.runtime.rates import Rates
from sampling.runtime.ray_guard import check_reachable, unchanged_handlers
from stepverify.records import InputError

Failed = Literal["error", "skip"]
Number = int | Literal["auto"]

_DEATHS = 4  # of replicas with a request in work, the last two alone with it, after which the request is given up
_SUSPECT = 2  # deaths after which a request runs alone on a replica
_IN_A_ROW = 6  # deaths without any answer between them, after which the run ends
_PLACED = 60.0  # seconds for an actor to begin, before which it loads nothing
_STORE = 1 << 27  # bytes of Ray's object store on this machine: requests and answers are small


class Lethal(InputError):
    """Report a request that has ended every replica that worked on it."""


class Replicas:
    """Run replicas of a worker in Ray actors.

    Each call goes to one replica (:class:`sampling.runtime.dispatch.Dispatch`). A replica that dies (a signal, a lost
    node, memory) is replaced, and its calls are made again. A call whose replicas died twice is made again alone on a
    replica, and is given up once two more have died, since neither another call nor chance is then likely to be the
    cause. Errors that a worker raises are raised here. Replicas end with this process, however it ends.

    Args:
        worker: an object with coroutine functions; each actor has a copy, pickled when the actor begins.
        name: what the worker runs, for messages.
        limit: largest amount outstanding at a replica.
        number: number of replicas; ``auto`` has as many as the cluster's GPUs, or else its CPUs, allow.
        resources: what each replica takes: ``num_gpus`` (1 where the cluster has any), ``num_cpus`` (1), and custom
            resources of the cluster by name.
        address: of a Ray cluster; ``auto`` finds the one this machine belongs to; None starts one on this machine.
        heed: called after each answer with the name of the replica and the ``usage`` of its worker.
        unit: what answers are counted in, for the progress line.
        count: number of them in an answer.
    """

    def __init__(
        self, worker: Any, name: str, limit: int, number: Number = "auto", resources: dict[str, float] | None = None,
        address: str | None = None, heed: Callable[[str, Any], None] = lambda name, usage: None,
        unit: str = "answers", count: Callable[[Any], int] = lambda answer: 1,
    ) -> None:  # fmt: skip
        self._worker, self.name, self.limit, self.address, self._heed = worker, name, limit, address, heed
        self._number, self._resources = number, dict(resources or {})
        self._dispatcher: Dispatcher[Any] | None = None
        self._in_a_row = 0
        self._actors, self._placing = set[Any](), set[asyncio.Task[None]]()
        self._num_deaths = 0
        self._rates, self._count = Rates(unit), count

    @property
    def number(self) -> int:
        """Return the number of replicas.

        Raises:
            InputError: Ray is missing, or its cluster has too little.
        """
        total = connected(self.address).cluster_resources()
        wanted = self._wanted(total)
        fits = min((int(total.get(key, 0.0) / amount) for key, amount in wanted.items() if amount), default=1)
        number = fits if self._number == "auto" else self._number
        if number < 1 or (number > fits and self.address is None):
            asks = ", ".join(f"{key} {amount:g}" for key, amount in wanted.items() if amount)
            has = ", ".join(f"{key} {total.get(key, 0.0):g}" for key in wanted)
            raise InputError(
                f"replicas: {self._number} of {self.name} (each {asks}) do not fit into what Ray has ({has}); change "
                "replicas or resources"
            )
        return number

    def _wanted(self, total: dict[str, float]) -> dict[str, float]:
        """Return what a replica takes, by the names that Ray gives resources."""
        named = {"num_cpus": "CPU", "num_gpus": "GPU"}
        defaults = {"num_gpus": float(total.get("GPU", 0.0) >= 1), "num_cpus": 1.0}
        return {named.get(key, key): float(amount) for key, amount in (defaults | self._resources).items()}

    def status(self) -> str:
        """Return the number of replicas, of those that died, and how much each does in a second."""
        alive = self._dispatcher.dispatch.outstanding if self._dispatcher else {}
        died = f" ({self._num_deaths} died)" if self._num_deaths else ""
        each = self._rates.show(alive)
        return f"{len(alive)} replica{'s' * (len(alive) != 1)}{died}" + (f", {each}" if each else "")

    async def call(
        self, key: str, amount: int, prefixes: Sequence[Hashable], method: str, *arguments: Any
    ) -> Any:  # fmt: skip
        """Call a method of the worker on one of the replicas.

        Args:
            key: names the call in messages.
            amount: what it adds to a replica's outstanding amount.
            prefixes: keys of what a replica may know already, the shortest first.
            method: a coroutine function of the worker.
            arguments: given to it.

        Raises:
            Lethal: every replica that worked on it died.
            InputError: replicas die without answering.
        """
        dispatcher = self._dispatcher or self._start()
        for deaths in range(_DEATHS):
            async with dispatcher.hold(prefixes, amount, alone=deaths >= _SUSPECT) as actor:
                try:
                    answer, name, usage = await self._answer(actor, "call", (method, *arguments))
                except _deaths() as error:
                    self._replace(dispatcher, actor, str(error))
                else:
                    self._in_a_row = 0
                    self._heed(name, usage)
                    self._rates.add(actor, self._count(answer))
                    return answer
        raise Lethal(f"{key}: {_DEATHS} replicas of {self.name} died while they worked on it, the last two on it alone")

    async def _answer(self, actor: Any, method: str, arguments: Sequence[Any]) -> Any:
        """Call a method of an actor."""
        import ray

        reference = getattr(actor, method).remote(*arguments)
        try:
            return await reference
        except asyncio.CancelledError:
            with suppress(Exception):
                ray.cancel(reference)
            raise
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, BaseException) else error
            raise cause from None

    def _start(self) -> Dispatcher[Any]:
        number = self.number
        self._dispatcher = Dispatcher(self.limit)
        for _ in range(number):
            self._add(self._dispatcher)
        return self._dispatcher

    def _actor(self) -> Any:
        ray = connected(self.address)
        wanted = self._wanted(ray.cluster_resources())
        custom = {key: amount for key, amount in wanted.items() if key not in ("CPU", "GPU")}
        kind = ray.remote(_Actor).options(
            num_cpus=wanted["CPU"], num_gpus=wanted["GPU"], resources=custom, max_concurrency=100_000, max_restarts=0
        )
        return kind.remote(self._worker)

    def _replace(self, dispatcher: Dispatcher[Any], actor: Any, reason: str) -> None:
        """Replace a replica that died, once."""
        if actor not in self._actors:
            return
        self._actors.discard(actor)
        dispatcher.remove(actor)
        self._in_a_row += 1
        self._num_deaths += 1
        said = " ".join(reason.split())[:300]
        if self._in_a_row >= _IN_A_ROW:
            dispatcher.fail(
                InputError(f"{self.name}: {self._in_a_row} replicas died one after the other without an answer: {said}")
            )
            return
        print(f"{self.name}: a replica died and is replaced: {said}", file=sys.stderr)
        self._add(dispatcher)

    def _add(self, dispatcher: Dispatcher[Any]) -> None:
        self._actors.add(actor := self._actor())
        task = asyncio.create_task(self._place(dispatcher, actor))
        self._placing.add(task)
        task.add_done_callback(self._placing.discard)

    async def _place(self, dispatcher: Dispatcher[Any], actor: Any) -> None:
        """Give requests to an actor once it has begun; where others have what it needs, it would wait for ever."""
        begun = asyncio.ensure_future(self._answer(actor, "begun", ()))
        try:
            if not (await asyncio.wait({begun}, timeout=_PLACED))[0]:
                text = (
                    f"{self.name}: Ray had no room for a replica for {_PLACED:g} seconds; others, such as a scorer's, "
                    "have taken its CPUs or GPUs: lower `replicas`, or share them (`resources: {num_gpus: 0.5}`)"
                )
                if self.address is None:
                    dispatcher.fail(InputError(text))
                    return
                # A cluster may grow. Other replicas work meanwhile.
                print(f"{text}; waiting for it", file=sys.stderr)
            await begun
        except _deaths() as error:
            self._replace(dispatcher, actor, str(error))
        else:
            dispatcher.add(actor)
        finally:
            begun.cancel()

    async def aclose(self) -> None:
        """End all replicas."""
        if self._dispatcher is None:
            return
        import ray

        self._dispatcher = None
        for task in self._placing:
            task.cancel()
        for actor in self._actors:
            with suppress(Exception):
                ray.kill(actor)
        self._actors.clear()


def check_number(replicas: Number) -> None:
    """Check a number of replicas before anything starts.

    Raises:
        InputError: an impossible one.
    """
    if replicas != "auto" and replicas < 1:
        raise InputError(f"replicas: expected auto, or 1 or more, got {replicas}")


def connected(address: str | None) -> Any:
    """Connect to a Ray cluster, once; return the module.

    Args:
        address: as of ``ray.init``; None starts a cluster on this machine, which ends with this process.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with unchanged_handlers():
        try:
            import ray
        except ImportError as error:
            raise InputError(f"replicas need Ray ({error}); install stepverify[ray]") from None
        if ray.is_initialized():
            return ray
        check_reachable(address)
        local: dict[str, Any] = {"object_store_memory": _STORE} if address is None else {}
        try:
            ray.init(
                address="local" if address is None else address, include_dashboard=False, log_to_driver=False,
                logging_level=logging.ERROR, **local,
            )  # fmt: skip
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"address: {address}: {' '.join(str(error).split())[:300]}") from None
    return ray


def _deaths() -> tuple[type[BaseException], ...]:
    from ray import exceptions

    return (
        exceptions.RayActorError, exceptions.OutOfMemoryError, exceptions.NodeDiedError, exceptions.WorkerCrashedError,
    )  # fmt: skip


class _Actor:
    """Hold a worker in an actor; its calls run concurrently."""

    def __init__(self, worker: Any) -> None:
        self._worker, self._name = worker, uuid.uuid4().hex

    async def begun(self) -> None:
        """Answer at once."""

    async def call(self, method: str, *arguments: Any) -> tuple[Any, str, Any]:
        """Call a coroutine function of the worker; return its answer, the replica's name, and what it has used."""
        answer = await getattr(self._worker, method)(*arguments)
        return answer, self._name, getattr(self._worker, "usage", None)
