"""Know which of several servers are used: take out those that go away, and find those that return."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from sampling.engines.server.endpoint import Endpoint
from sampling.engines.server.faults import Fault
from sampling.engines.server.protocol import Protocol
from sampling.engines.server.retries import Retries
from sampling.runtime.dispatch import Dispatcher
from stepverify.records import InputError


class Roster:
    """Take servers out, and put them back.

    Args:
        endpoints: all servers.
        dispatcher: divides requests among those that are used.
        retries: pauses and limits.
        check_same: checks that a server is there and answers as the others do (Fault, InputError).
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], dispatcher: Dispatcher[Endpoint], retries: Retries,
        check_same: Callable[[Endpoint], Awaitable[None]],
    ) -> None:  # fmt: skip
        self.endpoints, self._dispatcher, self._retries, self._check_same = endpoints, dispatcher, retries, check_same
        self._protocol: Protocol | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def used(self) -> list[Endpoint]:
        """Return the servers that are not out."""
        return [endpoint for endpoint in self.endpoints if not endpoint.out]

    def status(self) -> str:
        """Return how many servers are used."""
        return f"{len(self.used)} of {len(self.endpoints)} servers"

    def begin(self, protocol: Protocol) -> None:
        """Give the servers requests, and look for those that are out."""
        self._protocol = protocol
        for endpoint in self.endpoints:
            self._dispatcher.add(endpoint)
            if endpoint.out:
                self._dispatcher.pause(endpoint)
                print(f"{endpoint.key}: {endpoint.shown}: {endpoint.out}; left out until it answers", file=sys.stderr)
                self._spawn(self._await_return(endpoint))
        self._spawn(self._patrol())

    def take_out(self, endpoint: Endpoint, error: Fault | InputError) -> None:
        """Give a server no requests until it is found to answer again."""
        if endpoint.out:
            return
        self._dispatcher.pause(endpoint)
        self._note(endpoint, error)
        endpoint.continued, endpoint.bad = None, 0
        waits = f"; for up to {self._retries.patience.give_up_after:g} s requests wait for one to return"
        print(
            f"{self._said(endpoint, error)}; taken out, {self.status()} are left{'' if self.used else waits}",
            file=sys.stderr,
        )
        self._spawn(self._await_return(endpoint))

    def rest(self, endpoint: Endpoint, seconds: float) -> None:
        """Give a server no requests for some time, though it is not out."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        if endpoint.rest is None or endpoint.rest.when() < until:
            if endpoint.rest is not None:
                endpoint.rest.cancel()
            endpoint.rest = loop.call_at(until, self._rested, endpoint)
            self._dispatcher.pause(endpoint)

    def _rested(self, endpoint: Endpoint) -> None:
        endpoint.rest = None
        if not endpoint.out:
            self._dispatcher.resume(endpoint)

    async def lives(self, endpoint: Endpoint) -> bool:
        """Check that a server answers; otherwise it is taken out."""
        assert self._protocol is not None
        try:
            await endpoint.check(self._protocol)
        except (Fault, InputError) as error:
            self.take_out(endpoint, error)
            return False
        return True

    async def any_lives(self) -> None:
        """Check that any server answers.

        Raises:
            Fault: none does.
        """
        if not any(await asyncio.gather(*map(self.lives, self.used))):
            raise Fault(self._retries.fault)

    def check_any(self) -> None:
        """Check that not all servers refuse, which waiting would not change.

        Raises:
            InputError: they do.
        """
        if all(endpoint.refused for endpoint in self.endpoints):
            raise InputError(f"no server is left: {self._retries.fault}")

    async def _await_return(self, endpoint: Endpoint) -> None:
        """Check a server until it answers as the others do."""
        told = {endpoint.out}
        while True:
            await asyncio.sleep(endpoint.next_pause())
            try:
                await self._check_same(endpoint)
            except (Fault, InputError) as error:
                self._note(endpoint, error)
                if endpoint.refused and endpoint.out not in told:
                    print(f"{self._said(endpoint, error)}; it is not used", file=sys.stderr)
                    told.add(endpoint.out)
            else:
                break
        endpoint.out, endpoint.refused, endpoint.answered = "", False, time.monotonic()
        print(f"{endpoint.shown}: answers and is used; {self.status()}", file=sys.stderr)
        if endpoint.rest is None:
            self._dispatcher.resume(endpoint)

    async def _patrol(self) -> None:
        """Find servers that have answered nothing for long, and end their requests, which others are asked then."""

        async def end(endpoint: Endpoint) -> None:
            if not await self.lives(endpoint):
                endpoint.abandon()

        limit = self._retries.patience.give_up_after / 2
        while True:
            await asyncio.sleep(limit / 8)
            await asyncio.gather(*(end(endpoint) for endpoint in self.endpoints if endpoint.silent(limit)))

    def _note(self, endpoint: Endpoint, error: Fault | InputError) -> None:
        endpoint.out, endpoint.refused = str(error), isinstance(error, InputError)
        self._retries.fault = self._said(endpoint, error)
        if all(other.refused for other in self.endpoints):
            self._retries.end(f"no server is left: {self._retries.fault}")

    def _said(self, endpoint: Endpoint, error: Fault | InputError) -> str:
        return str(error) if isinstance(error, InputError) else f"{endpoint.shown}: {error}"

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._dispatcher.fail(error)  # a fault of this program

        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(end)

    async def aclose(self) -> None:
        """End all checks."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
