"""Several scripted servers, each of which can die with requests in flight and come back at its port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from sampling.engines import Completion, Request, SamplingOptions, ServerEngine
from sampling.runtime.scheduler import run_all
from tests.helpers.endpoints import Endpoint, engine_at, in_thread, number


class Fleet:
    """Servers of one event loop.

    Attributes:
        endpoints: the servers; those that died keep their place.
        urls: of the servers, once they listen.
    """

    def __init__(self, *endpoints: Endpoint) -> None:
        self.endpoints = list(endpoints)
        self.urls: list[str] = [""] * len(endpoints)
        self._stacks: dict[int, AsyncExitStack] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, i: int, endpoint: Endpoint | None = None) -> None:
        """Listen, at the port of before if there was one, and with another server if it is given."""
        self.endpoints[i] = endpoint or self.endpoints[i]
        stack = AsyncExitStack()
        port = urlsplit(self.urls[i]).port or 0
        self.urls[i] = await stack.enter_async_context(self.endpoints[i].serving(port))
        self._stacks[i] = stack

    async def kill(self, i: int) -> None:
        """End a server, and its connections without an answer."""
        if (stack := self._stacks.pop(i, None)) is not None:
            await stack.aclose()

    def soon(self, *works: Any) -> None:
        """Do something one after the other, outside of the request that is being answered."""

        async def every() -> None:
            for work in works:
                await work

        task = asyncio.get_running_loop().create_task(every())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def die(self, i: int, *after: Any) -> Any:
        """Answer a request by the death of the server, and do something afterwards."""
        self.soon(self.kill(i), *after)
        await asyncio.sleep(60)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[list[str]]:
        """Listen in the caller's event loop."""
        try:
            for i in range(len(self.endpoints)):
                await self.start(i)
            yield self.urls
        finally:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for i in range(len(self.endpoints)):
                await self.kill(i)

    def listening(self) -> AbstractContextManager[list[str]]:
        """Listen in a thread of its own, for stages that run an event loop themselves."""
        return in_thread(self.serving())

    def run(self, work: Callable[[list[str]], Any]) -> Any:
        """What ``work(urls)`` returns, with all servers listening."""

        async def main() -> Any:
            async with self.serving() as urls:
                return await work(urls)

        return asyncio.run(asyncio.wait_for(main(), 60))


async def answered(
    engine: ServerEngine, requests: list[Request], max_in_work: int | None = None, *, close: bool = True
) -> dict[str, list[Completion]]:
    """Completions of many requests by key, after which the engine is closed."""
    found: dict[str, list[Completion]] = {}

    async def one(request: Request) -> None:
        found[request.key] = await engine.complete(request, SamplingOptions(max_tokens=8))

    try:
        await run_all(requests, one, max_in_work=max_in_work)
    finally:
        if close:
            await engine.aclose()
    return found


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


def several(urls: list[str], **options: Any) -> ServerEngine:
    """An engine over servers, of which none is given up for long."""
    return engine_at(urls, **{"give_up_after": 30.0} | options)


def requests(count: int, n: int = 1) -> list[Request]:
    """Different prompts of 8 tokens, so that each has one key of a prefix, with seeds of their own."""
    return [Request(f"p#{i}", [20 + i] * 8, n, 10 * i + i % 10) for i in range(count)]


def expected(asked: list[Request]) -> dict[str, list[Completion]]:
    """What one server that answers :func:`by_number` gives."""
    return {r.key: [number((r.seed + i) % 10) for i in range(r.n)] for r in asked}


def seeds(*endpoints: Endpoint) -> list[int]:
    """Seeds of all requests that servers were asked."""
    return sorted(body["seed"] for endpoint in endpoints for body in endpoint.asked)
