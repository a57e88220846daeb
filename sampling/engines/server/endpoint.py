"""Hold one server of an engine: its connection, what it takes, and whether it answers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sampling.engines.base import SamplingOptions
from sampling.engines.server.answers import Answer
from sampling.engines.server.faults import Fault, Refusal, scrubbed
from sampling.engines.server.probe import Attempt, Continued, Probe
from sampling.engines.server.protocol import Form, Protocol
from sampling.engines.server.retries import Retries
from stepverify.records import InputError

if TYPE_CHECKING:
    from sampling.engines.server.client import Client

_CHECK = 60.0  # seconds for one of several servers to answer a request for a few tokens
_EVERY = 30.0  # seconds between two checks of a server that does not answer, at most

Send = Callable[["Client"], Awaitable[Answer]]
"""Send a request once to a server."""


@dataclass(frozen=True)
class Wanted:
    """Hold what a run asks of every server.

    Attributes:
        model: the server's name of the model.
        forms: of prompts, the preferred one first.
        tokenizer: the local one, or None.
        options: sampling options.
        extra_body: fields that the user adds to every request.
        max_model_len: token limit that the user gives; None takes the servers'.
    """

    model: str
    forms: list[Form]
    tokenizer: Any
    options: SamplingOptions
    extra_body: Mapping[str, Any]
    max_model_len: int | None


class Endpoint:
    """Ask one server.

    Args:
        client: its connection.
        wanted: what the run asks of it.
        retries: pauses and limits.

    Attributes:
        attempt: sends a request about what it takes, with retries: by default after bad answers only.
        out: why it gets no requests; empty if it gets some.
        refused: it is out because it refuses, or differs from the others; it is not waiting for a restart.
        answered: time of its latest answer.
        bad: bad answers since its latest good one.
        pause: seconds before it is checked, once it is out.
        continued: what it returns after the beginning of a turn; None before that is known.
        rest: timer that ends a rest, for which it has asked.
    """

    def __init__(self, client: Client, wanted: Wanted, retries: Retries) -> None:
        self.client, self.wanted, self.retries = client, wanted, retries
        self.attempt: Attempt = self._repeat
        self.key, self.shown = client.address.key, client.address.shown
        self.out, self.refused, self.answered, self.bad = "", False, 0.0, 0
        self.continued: Continued | None = None
        self.rest: asyncio.TimerHandle | None = None
        self._flights: set[asyncio.Task[Answer]] = set()
        self._sent = 0.0  # since when it has had requests without a break
        self._within = min(_CHECK, client.timeout)
        self._checking: asyncio.Task[Answer] | None = None
        self.pause = retries.patience.first_pause

    @property
    def probe(self) -> Probe:
        """Return what finds out what the server takes."""
        wanted = self.wanted
        return Probe(self.client, self.attempt, wanted.model, wanted.options, wanted.extra_body)

    async def found(self) -> Protocol:
        """Return how to ask the server, which is found out by a few requests.

        Raises:
            InputError: it serves another model, or refuses what the run asks.
            Fault: it does not answer.
        """
        context = await self.probe.context()
        limit = self.wanted.max_model_len or context
        try:
            return await self.probe.protocol(self.wanted.forms, limit, self.wanted.tokenizer)
        except Refusal as refusal:
            raise self._refuses(refusal) from None

    def _refuses(self, refusal: Refusal) -> InputError:
        return InputError(f"{self.shown}: refuses a request for a few tokens: {refusal}")

    async def _repeat(self, send: Callable[[], Awaitable[Any]]) -> Any:
        """Repeat a request after bad answers only."""
        failed = 0
        while True:
            try:
                async with asyncio.timeout(self._within):
                    return await self._scrubbed(send())
            except TimeoutError:
                raise Fault(f"no answer within {self._within:g} seconds", "away") from None
            except Fault as fault:
                failed += 1
                if fault.kind != "bad" or failed > self.retries.patience.max_retries:
                    raise
                await asyncio.sleep(self.retries.patience.pause(failed, fault.wait, random.random()))

    async def _scrubbed(self, work: Awaitable[Any]) -> Any:
        return await scrubbed(self.client.address.scrub, work)

    async def once(self, send: Send) -> Answer:
        """Send a request once; it ends with a fault if :meth:`abandon` is called."""
        if not self._flights:
            self._sent = time.monotonic()
        task = asyncio.ensure_future(self._scrubbed(send(self.client)))
        self._flights.add(task)
        try:
            await asyncio.wait({task})
            if task.cancelled():
                raise Fault(self.out, "away")
            answer = task.result()
        except Refusal:
            self.answered = time.monotonic()
            raise
        finally:
            self._flights.discard(task)
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self.answered, self.bad, self.pause = time.monotonic(), 0, self.retries.patience.first_pause
        return answer

    def silent(self, seconds: float) -> bool:
        """Tell whether it has answered nothing for so long, though it had requests."""
        return bool(self._flights) and time.monotonic() - max(self.answered, self._sent) > seconds

    def abandon(self) -> None:
        """End the requests in flight with a fault."""
        for task in self._flights:
            task.cancel()

    async def check(self, protocol: Protocol) -> None:
        """Ask for one token; calls of the same time share the request.

        Raises:
            Fault: it does not answer that, nor anything else meanwhile.
            InputError: it refuses.
        """
        begun, within = time.monotonic(), min(self._within, self.retries.patience.give_up_after / 4)
        if self._checking is None or self._checking.done():
            self._checking = asyncio.ensure_future(self.probe.ask(protocol, self.wanted.options, 1))
        try:
            async with asyncio.timeout(within):
                await asyncio.shield(self._checking)
        except TimeoutError:
            if self.answered < begun:
                raise Fault(f"no answer within {within:g} seconds", "away") from None
        except Refusal as refusal:
            raise self._refuses(refusal) from None
        except Fault as fault:
            if fault.kind != "busy" and self.answered < begun:
                raise
        self.answered = time.monotonic()

    def next_pause(self) -> float:
        """Return the seconds before the next check; every pause is twice as long, up to half a minute."""
        pause, most = self.pause, min(_EVERY, self.retries.patience.longest_pause)
        self.pause = most if self.refused else min(most, 2 * pause)
        return pause

    async def aclose(self) -> None:
        """Close the connections."""
        if self.rest is not None:
            self.rest.cancel()
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
        await self.client.aclose()
