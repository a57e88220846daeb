"""Ask the servers of an engine; a single one is asked until it answers."""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from typing import Any

from sampling.engines.server.answers import Answer
from sampling.engines.server.endpoint import Endpoint, Send
from sampling.engines.server.faults import scrubbed
from sampling.engines.server.probe import Continued
from sampling.engines.server.protocol import Protocol
from sampling.engines.server.retries import Retries
from sampling.runtime.dispatch import Dispatcher

_SHOWN = 3  # names in a message


class Servers(ABC):
    """Ask servers of one model; those of one event loop.

    Args:
        endpoints: the servers.
        retries: pauses and limits.
        limit: requests in flight at one server.

    Attributes:
        protocol: how they are asked, once they have started.
        continued: what they return after the beginning of a turn of the assistant; None before it is known.
    """

    protocol: Protocol
    continued: Continued | None = None

    def __init__(self, endpoints: Sequence[Endpoint], retries: Retries, limit: int) -> None:
        self.endpoints, self.retries = endpoints, retries
        self._dispatcher = Dispatcher[Endpoint](limit)
        self._told: set[str] = set()
        self._continues: asyncio.Task[Continued] | None = None

    @property
    def where(self) -> str:
        """Return the servers as messages name them."""
        return self.retries.where

    @abstractmethod
    async def start(self) -> None:
        """Find out what the servers take, and say it.

        Raises:
            InputError: they serve another model, refuse, or cannot be reached.
        """

    @abstractmethod
    async def ask(self, key: str, prefixes: Sequence[Hashable], send: Send) -> Answer:
        """Return the answer to a request.

        Args:
            key: the request in messages.
            prefixes: keys of what a server may have in its prefix cache, the shortest first.
            send: sends the request once.

        Raises:
            Refusal: the request is refused for good.
            InputError: it has failed too often, or nothing is answered any more.
        """

    def status(self) -> str:
        """Return how many servers are used; empty for a single one."""
        return ""

    async def continues(self) -> Continued:
        """Return what the servers return after the beginning of a turn of the assistant; also as ``continued``."""
        if self._continues is None:
            self._continues = asyncio.ensure_future(self._continued())
        self.continued = found = await asyncio.shield(self._continues)
        return found

    def say(self, where: str, text: str) -> None:
        """Say something about a server once for all of them."""
        if text not in self._told:
            self._told.add(text)
            print(f"{where}: {text}", file=sys.stderr)

    @abstractmethod
    def _continued(self) -> Coroutine[Any, Any, Continued]: ...

    async def aclose(self) -> None:
        """Close the connections."""
        if self._continues is not None:
            self._continues.cancel()
            await asyncio.gather(self._continues, return_exceptions=True)
        for endpoint in self.endpoints:
            await endpoint.aclose()


class OneServer(Servers):
    """Ask a single server, again and again until it answers (:class:`Retries`)."""

    def __init__(self, endpoints: Sequence[Endpoint], retries: Retries, limit: int) -> None:
        super().__init__(endpoints, retries, limit)
        (self._only,) = endpoints
        self._only.attempt = self._begin

    async def start(self) -> None:
        """Find out what the server takes."""
        only = self._only
        self.protocol = await only.found()
        print(f"{only.shown}: {self.protocol.describe()}", file=sys.stderr)
        self.retries.alive = lambda: self._scrubbed(only.probe.ask_once(self.protocol, only.wanted.options))
        self._dispatcher.add(only)

    async def ask(self, key: str, prefixes: Sequence[Hashable], send: Send) -> Answer:
        """Return the answer to a request; its place is kept during pauses."""
        async with self._dispatcher.hold((), 1):
            return await self.retries.run(key, lambda: self._scrubbed(send(self._only.client)))

    def _continued(self) -> Coroutine[Any, Any, Continued]:
        return self._only.probe.continues(self.protocol)

    async def _begin(self, send: Callable[[], Awaitable[Any]]) -> Any:
        return await self.retries.run("first request", lambda: self._scrubbed(send()), starting=True)

    async def _scrubbed(self, work: Awaitable[Any]) -> Any:
        return await scrubbed(self._only.client.address.scrub, work)


def listed(names: Sequence[str]) -> str:
    """Return the first of many names, and how many more there are."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
