"""Run coroutines of many problems concurrently.

Their number is bounded, they start lazily and are cancelled cleanly. All functions are meant for one event loop in the
main thread. Engines work in threads of their own, or await sockets, so that generation continues while a coroutine
tokenizes, grades or writes.
"""

from __future__ import annotations

import asyncio
import heapq
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

SIGTERM_EXIT_CODE = 128 + signal.SIGTERM


async def run_all(
    items: Iterable[Item], work: Callable[[Item], Awaitable[None]], *, max_in_work: int | None = None
) -> None:
    """Run a coroutine for each item, at most ``max_in_work`` at once.

    Items are taken from the iterable when there is room for them, so a stream of any length may be passed. If one
    coroutine raises, or this one is cancelled, the others are cancelled and awaited.

    Args:
        items: the items to work on, for example problems.
        work: makes the coroutine of an item.
        max_in_work: largest number of coroutines at the same time; None starts all at once.

    Raises:
        BaseException: the first one that a coroutine raised, unchanged.
    """
    running: set[asyncio.Task[BaseException | None]] = set()
    errors: list[BaseException] = []
    changed = asyncio.Event()

    def end(task: asyncio.Task[BaseException | None]) -> None:
        running.discard(task)
        if task.cancelled():
            errors.append(asyncio.CancelledError())
        elif (error := task.result()) is not None:
            errors.append(error)
        changed.set()

    async def wait_until_fewer_than(number: int) -> None:
        while len(running) >= number and not errors:
            changed.clear()
            await changed.wait()
        if errors:
            raise errors[0]

    try:
        for item in items:
            task = asyncio.create_task(_caught(work, item))
            running.add(task)
            task.add_done_callback(end)
            if max_in_work is not None:
                await wait_until_fewer_than(max_in_work)
        await wait_until_fewer_than(1)
    finally:
        left = [*running]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _caught(work: Callable[[Item], Awaitable[None]], item: Item) -> BaseException | None:
    """Work on an item and return the error instead of raising it.

    A task that raises KeyboardInterrupt would stop the whole event loop.
    """
    try:
        await work(item)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return error
    return None


async def together(works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Await all coroutines and return their results in order.

    If one fails, the others are cancelled and its error is raised. Each begins in the next turn of the event loop, a
    single one too, so that callers of the same turn keep their order.
    """
    waiting = list(works)
    results: dict[int, Result] = {}

    async def one(numbered: tuple[int, Coroutine[Any, Any, Result]]) -> None:
        results[numbered[0]] = await numbered[1]

    try:
        await run_all(enumerate(waiting), one)
    finally:
        for work in waiting:  # those cancelled before they began were never awaited
            work.close()
    return [results[i] for i in range(len(waiting))]


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, like ``asyncio.run``; SIGTERM cancels it.

    Inside a notebook, whose thread already runs an event loop, it runs in a thread of its own.

    Raises:
        SystemExit: with code 143, after SIGTERM, once the coroutine has ended.
        KeyboardInterrupt: after SIGINT, once the coroutine has ended.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_until_terminated(main))
    with ThreadPoolExecutor(1, "event loop") as pool:
        return pool.submit(asyncio.run, main).result()


async def _until_terminated(main: Coroutine[Any, Any, Result]) -> Result:
    # Only if the signal has no other handler: training has its own.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return await main
    loop, task, terminated = asyncio.get_running_loop(), asyncio.current_task(), False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        assert task is not None
        task.cancel()

    try:
        loop.add_signal_handler(signal.SIGTERM, terminate)
    except NotImplementedError:  # Windows
        return await main
    try:
        return await main
    except asyncio.CancelledError:
        if terminated:
            raise SystemExit(SIGTERM_EXIT_CODE) from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


class PriorityLimit:
    """Limit what is in flight, and admit the lowest key first.

    A request for more than ``limit`` is admitted alone.

    Args:
        limit: largest amount in flight, for example completions.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self._used, self._number = limit, 0, 0
        self._waiting: list[tuple[Any, int, int, asyncio.Future[None]]] = []
        self._scheduled = False

    @asynccontextmanager
    async def hold(self, amount: int, key: Any) -> AsyncIterator[None]:
        """Wait for ``amount``, and hold it inside the block."""
        future = asyncio.get_running_loop().create_future()
        self._number += 1
        heapq.heappush(self._waiting, (key, self._number, amount, future))
        self._schedule()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # admitted at the same moment
                self._release(amount)
            raise
        try:
            yield
        finally:
            self._release(amount)

    def _release(self, amount: int) -> None:
        self._used -= amount
        self._schedule()

    def _schedule(self) -> None:
        # Not at once: all requests of this turn of the event loop are admitted by key.
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._admit)

    def _admit(self) -> None:
        self._scheduled = False
        while self._waiting and (not self._used or self._used + self._waiting[0][2] <= self.limit):
            _, _, amount, future = heapq.heappop(self._waiting)
            if not future.done():
                self._used += amount
                future.set_result(None)
