"""Join small calls of many coroutines into larger ones."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_ITEMS = 1024
"""Items after which no more lists join a call, so that an interruption waits for little."""


class Batched(Generic[Item, Result]):
    """Call a function of a list in a thread, for many coroutines together.

    Lists that arrive while the thread works go to it in one call. Made for one event loop.

    Args:
        call: returns one result per item, in order.
        pool: where it is called.
    """

    def __init__(self, call: Callable[[list[Item]], list[Result]], pool: Executor) -> None:
        self._call, self._pool = call, pool
        self._waiting = deque[tuple[list[Item], asyncio.Future[list[Result]]]]()
        self._working: asyncio.Task[None] | None = None

    async def __call__(self, items: Iterable[Item]) -> list[Result]:
        """Return the result of each item.

        Raises:
            BaseException: the error of the call that this list was part of.
        """
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append((list(items), future))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while taken := self._taken():
                joined = [item for items, _ in taken for item in items]
                try:
                    results = iter(await loop.run_in_executor(self._pool, self._call, joined))
                except asyncio.CancelledError:  # the event loop ends
                    raise
                except BaseException as error:  # raised where the results are awaited, Ctrl-C too
                    for _, future in taken:
                        if not future.done():
                            future.set_exception(error)
                else:
                    for items, future in taken:
                        part = list(islice(results, len(items)))
                        if not future.done():  # else cancelled meanwhile
                            future.set_result(part)
        finally:
            self._working = None

    def _taken(self) -> list[tuple[list[Item], asyncio.Future[list[Result]]]]:
        taken, number = [], 0
        while self._waiting and number < MAX_ITEMS:
            items, future = self._waiting.popleft()
            if not future.done():  # else cancelled
                taken.append((items, future))
                number += len(items)
        return taken
