"""Divide requests among several servers of one model, and ask others for what one leaves."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Coroutine, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sampling.engines.server.answers import Answer
from sampling.engines.server.endpoint import Endpoint, Send
from sampling.engines.server.faults import Fault, Refusal
from sampling.engines.server.probe import Continued
from sampling.engines.server.protocol import Protocol
from sampling.engines.server.retries import Retries
from sampling.engines.server.roster import Roster
from sampling.engines.server.servers import Servers, listed
from stepverify.records import InputError

_ENDED = 3  # servers that went away with a request in work, the last one alone with it, after which it is given up
_SUSPECT = 2  # servers after which a request is asked alone
_BAD = 5  # bad answers in a row, to any requests, after which a server is taken out


@dataclass(eq=False)
class _Call:
    """Hold what became of a request so far.

    Attributes:
        key: the request in messages.
        begun: time of its first attempt.
        failed: attempts that count towards ``max_retries``.
        ended: number of servers that went away while they worked on it, or refused it, ...
        at: ... and when the latest did.
        avoid: those that gave a bad answer.
    """

    key: str
    begun: float = 0.0
    failed: int = 0
    ended: int = 0
    at: float = 0.0
    avoid: set[Endpoint] = field(default_factory=set)


class SeveralServers(Servers):
    """Ask several servers of one model, each request the one with the least to do.

    A server that cannot be reached, or goes away, is taken out, and its requests are asked at the others at once. It is
    checked in growing intervals by the requests of the start, and used again once it answers them as the others do.

    A request that was lost with a server is asked only at one that has answered since; one that was lost with two,
    alone; one that was lost with three is given up, so that it ends no more of them. A busy server rests for as long as
    it asks for. Bad answers count as those of a single server; another one is asked next, where there is room.
    """

    def __init__(self, endpoints: Sequence[Endpoint], retries: Retries, limit: int) -> None:
        super().__init__(endpoints, retries, limit)
        self._roster = Roster(endpoints, self._dispatcher, retries, self._check_same)
        self._calls: set[_Call] = set()

    def status(self) -> str:
        """Return how many servers are used."""
        return self._roster.status()

    async def start(self) -> None:
        """Find out what the servers take, all at the same time; those that do not answer are left out for now."""
        self.protocol = await self.retries.watched(self._agreed())
        self.retries.alive, self.retries.note = self._roster.any_lives, self._at_work
        where = listed([endpoint.shown for endpoint in self._roster.used])
        print(f"{self.status()} ({where}): {self.protocol.describe()}", file=sys.stderr)
        self._roster.begin(self.protocol)

    async def _agreed(self) -> Protocol:
        for failed in itertools.count(1):
            results = await asyncio.gather(*(endpoint.found() for endpoint in self.endpoints), return_exceptions=True)
            found: dict[Endpoint, Protocol] = {}
            faults: list[Fault] = []
            for endpoint, result in zip(self.endpoints, results, strict=True):
                endpoint.out = ""
                if isinstance(result, Protocol):
                    found[endpoint] = result
                elif isinstance(result, InputError):
                    raise InputError(f"{endpoint.key}: {result}") from None
                elif not isinstance(result, Fault):
                    raise result
                elif result.kind == "bad":
                    raise InputError(f"{endpoint.key}: {endpoint.shown}: {result}") from None
                else:
                    endpoint.out = str(result)
                    faults.append(result)
            if found:
                break
            if all(fault.kind == "unreachable" for fault in faults):
                raise InputError(f"{self.where}: {faults[0]}; start the servers first, or change base_url")
            self.retries.fault = str(faults[0])
            await self.retries.pause(self.where, failed, faults[0])
        self.retries.served()
        return _joined(found)

    async def ask(self, key: str, prefixes: Sequence[Hashable], send: Send) -> Answer:
        """Return the answer to a request, from the first server that gives one."""
        self._roster.check_any()
        call = _Call(key)
        self._calls.add(call)
        try:
            return await self.retries.watched(self._ask(call, prefixes, send))
        finally:
            self._calls.discard(call)

    async def _ask(self, call: _Call, prefixes: Sequence[Hashable], send: Send) -> Answer:
        waited = False
        while True:
            async with self._dispatcher.hold(
                prefixes, 1, alone=call.ended >= _SUSPECT, avoid=call.avoid, first=waited
            ) as endpoint:  # fmt: skip
                waited = True
                if call.ended and endpoint.answered <= call.at and not await self._roster.lives(endpoint):
                    continue
                call.begun = call.begun or time.monotonic()
                try:
                    answer = await endpoint.once(send)
                except (Fault, InputError) as error:
                    fault = self._failed(call, endpoint, error)
                else:
                    self.retries.served()
                    return answer
            if fault is None:
                self.retries.retry()
            else:
                await self.retries.pause(endpoint.shown, call.failed, fault)

    def _failed(self, call: _Call, endpoint: Endpoint, error: Fault | InputError) -> Fault | None:
        """Note a failed attempt.

        Returns:
            The fault, if a pause is due before the next attempt.
        """
        if isinstance(error, InputError) or error.kind in ("unreachable", "away"):
            self._roster.take_out(endpoint, error)
            if isinstance(error, InputError) or error.kind == "away":
                call.ended, call.at = call.ended + 1, time.monotonic()
            if call.ended < _ENDED:
                return None
            if isinstance(error, InputError):
                raise InputError(f"{call.key}: {error}") from None
            raise Refusal(
                f"{error}; {call.ended} servers in turn went away while they worked on it, the last on it alone"
            )
        call.failed += 1
        self.retries.fault = f"{endpoint.shown}: {error}"
        self.retries.bear(call.key, endpoint.shown, call.failed, error, call.begun)
        if error.kind == "busy":
            self._roster.rest(endpoint, self.retries.patience.pause(call.failed, error.wait, 0.0))
            return None if self._dispatcher.dispatch.free() else error
        call.avoid.add(endpoint)
        endpoint.bad += 1
        if endpoint.bad >= _BAD:
            self._roster.take_out(endpoint, Fault(f"{endpoint.bad} bad answers in a row, the last one: {error}"))
        return error

    def _at_work(self) -> str:
        keys = sorted(call.key for call in self._calls if call.ended >= len(self.endpoints))
        return f"; each server went away while it worked on {listed(keys)}" if keys else ""

    async def _check_same(self, endpoint: Endpoint) -> None:
        """Check that a server is asked in the way that the run has begun with."""
        found, ours = await endpoint.found(), self.protocol
        difference = found.difference(ours, "the servers before it")
        if not difference and (found.context or 1 << 31) < (ours.context or 0):
            difference = f"takes {found.context} tokens, where the run has begun with {ours.context}"
        if not difference and self._continues is not None:
            endpoint.continued = await endpoint.probe.continues(ours)
            known = {self.continued, *(other.continued for other in self._roster.used)}
            if known - {None, endpoint.continued}:
                difference = "continues a turn of the assistant in another way than the servers before it"
        if difference:
            raise InputError(f"{endpoint.shown}: {difference}")

    def _continued(self) -> Coroutine[Any, Any, Continued]:
        return self.retries.watched(self._all_continue())

    async def _all_continue(self) -> Continued:
        while True:
            async with self._dispatcher.hold((), 1, first=True):
                lacking = [endpoint for endpoint in self._roster.used if endpoint.continued is None]
                results = await asyncio.gather(
                    *(endpoint.probe.continues(self.protocol) for endpoint in lacking), return_exceptions=True
                )
            for endpoint, result in zip(lacking, results, strict=True):
                if isinstance(result, (Fault, InputError)):
                    self._roster.take_out(endpoint, result)
                elif isinstance(result, BaseException):
                    raise result
                else:
                    endpoint.continued = result
            found = {endpoint.continued: endpoint for endpoint in self._roster.used}
            if None not in found and len(found) > 1:
                where = " and ".join(endpoint.shown for endpoint in found.values())
                raise InputError(f"{where} continue turns of the assistant in different ways; use one of them")
            if None not in found and found:
                return next(continued for continued in found if continued is not None)

    async def aclose(self) -> None:
        """End checks, and close the connections."""
        await self._roster.aclose()
        await super().aclose()


def _joined(found: dict[Endpoint, Protocol]) -> Protocol:
    """Return the protocol of servers that differ in their context at most; the smallest context counts.

    Raises:
        InputError: they differ in more.
    """
    first, protocol = next(iter(found.items()))
    for endpoint, other in found.items():
        if difference := other.difference(protocol, first.shown):
            raise InputError(f"{endpoint.key}: {endpoint.shown}: {difference}; all must serve one model alike")
    contexts = {endpoint: other.context for endpoint, other in found.items() if other.context is not None}
    if not contexts:
        return protocol
    least = min(contexts, key=lambda endpoint: contexts[endpoint])
    if len({*contexts.values()}) > 1:
        print(f"{least.shown}: takes {contexts[least]} tokens, the fewest of all; that limit is kept", file=sys.stderr)
    return replace(protocol, context=contexts[least])
