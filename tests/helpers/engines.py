"""Ask engines from tests that are no coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing

from sampling.engines import Completion, Engine, Request, SamplingOptions
from sampling.runtime.scheduler import run_all


def complete_all(
    engine: Engine, requests: Iterable[Request], options: SamplingOptions, max_in_work: int | None = None
) -> dict[str, list[Completion]]:
    """Completions of all requests by key, in the order in which they came, and close the engine."""
    found: dict[str, list[Completion]] = {}

    async def one(request: Request) -> None:
        found[request.key] = await engine.complete(request, options)

    async def every() -> None:
        async with aclosing(engine):
            await run_all(requests, one, max_in_work=max_in_work)

    asyncio.run(every())
    return found
