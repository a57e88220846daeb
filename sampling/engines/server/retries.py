"""Repeat attempts after temporary faults, and give up where a server answers nothing any more."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sampling.engines.server.faults import Fault
from stepverify.records import InputError

Result = TypeVar("Result")
_KEPT = "what was sampled is kept, the same command goes on"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Describe how long faults are borne.

    Attributes:
        max_retries: further attempts at one completion.
        give_up_after: seconds without any completion after which the whole run ends.
        first_pause: seconds before the second attempt; every further pause is up to twice as long.
        longest_pause: limit of a pause in seconds, also where the server asks for a longer one.
    """

    max_retries: int
    give_up_after: float
    first_pause: float = 0.5
    longest_pause: float = 60.0

    def pause(self, attempt: int, wait: float | None, random_share: float) -> float:
        """Return the seconds before the next attempt.

        Exponential backoff with jitter: half of the pause is random, so that many requests do not return together.

        Args:
            attempt: number of failed attempts, from 1 on.
            wait: seconds that the server asks for, or None.
            random_share: a random number in [0, 1).
        """
        backoff = min(self.longest_pause, self.first_pause * 2.0 ** min(attempt - 1, 60)) * (1 + random_share) / 2
        return min(self.longest_pause, max(backoff, (wait or 0.0) * (1 + random_share / 10)))


class Retries:
    """Repeat attempts of many requests to one server, and end them all where none is completed any more.

    A request fails after ``max_retries`` further attempts. Where the server rather than the request is at fault (no
    connection, 502, 503, 504, an aborted completion), it is repeated for ``give_up_after`` seconds too, so that a
    server may be restarted meanwhile; a server that is busy (429) is asked for as long as others are served.

    All requests together end when nothing has succeeded for ``give_up_after`` seconds. After half of them one token is
    asked for, so that long completions are not taken for silence.

    :class:`~sampling.engines.server.several.SeveralServers` repeats requests by rules of its own, within these limits.

    Args:
        where: the server in messages, or the servers.
        patience: the limits.
        on_retry: called before each further attempt.

    Attributes:
        alive: asks the server for one token; None before it is known how.
        note: what is added to the line that ends all requests.
        fault: the latest one.
    """

    def __init__(self, where: str, patience: Patience, on_retry: Callable[[], None] = lambda: None) -> None:
        self.where, self.patience, self._on_retry = where, patience, on_retry
        self.alive: Callable[[], Awaitable[Any]] | None = None
        self.note: Callable[[], str] = lambda: ""
        self.fault = "no answer"
        self._since, self._pending, self._served = 0.0, 0, False
        self._latest = 0.0  # completion of a request, and not the one token that is asked for
        self._dead: asyncio.Future[str] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._said = 0.0

    async def run(self, key: str, attempt: Callable[[], Awaitable[Result]], *, starting: bool = False) -> Result:
        """Return the result of the first attempt that succeeds.

        Args:
            key: the request in messages.
            attempt: sends it once.
            starting: the server has never answered, so a connection that fails ends the run at once.

        Raises:
            InputError: the request has failed too often, or the server answers nothing.
        """
        return await self.watched(self._persist(key, attempt, starting))

    async def watched(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return the result of a work, unless all requests end.

        Raises:
            InputError: nothing was completed for ``give_up_after`` seconds, or :meth:`end` was called.
        """
        with self._waiting() as dead:
            task = asyncio.create_task(work)
            try:
                both: set[asyncio.Future[Any]] = {task, dead}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if not task.done():
                    raise InputError(dead.result())
                return task.result()
            finally:
                if not task.done():
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

    def end(self, line: str) -> None:
        """End all requests with one line."""
        if self._dead is not None and not self._dead.done():
            self._dead.set_result(line)

    async def _persist(self, key: str, attempt: Callable[[], Awaitable[Result]], starting: bool) -> Result:
        failed, begun = 0, time.monotonic()
        while True:
            try:
                result = await attempt()
            except Fault as fault:
                failed += 1
                if starting and fault.kind == "unreachable":
                    raise InputError(f"{self.where}: {fault}; start the server first, or change base_url") from None
                self.fault = str(fault)
                self.bear(key, self.where, failed, fault, begun)
                await self.pause(self.where, failed, fault)
            else:
                self.served()
                return result

    def bear(self, key: str, where: str, failed: int, fault: Fault, begun: float) -> None:
        """Check that a request may be repeated.

        Args:
            key: the request in messages.
            where: the server in messages.
            failed: number of failed attempts.
            fault: of the latest one.
            begun: time of the first one.

        Raises:
            InputError: it has failed too often.
        """
        if failed > self.patience.max_retries and not self._bears(fault, begun):
            raise InputError(f"{key}: {where}: {fault} ({times(failed)})") from None

    def served(self) -> None:
        """Note that a request was completed."""
        self._succeed()
        self._latest = self._since

    def _bears(self, fault: Fault, begun: float) -> bool:
        """Tell whether a request is repeated beyond ``max_retries``."""
        if fault.kind == "busy":
            begun = max(begun, self._latest)
        now, limit = time.monotonic(), self.patience.give_up_after
        # After half of the limit without any success the watch decides, and ends all requests together.
        silent = self._since <= begun or now - self._since > limit / 2
        return fault.kind != "bad" and (now - begun < limit or silent)

    async def pause(self, where: str, failed: int, fault: Fault) -> None:
        """Wait before the next attempt at a request, which is counted."""
        pause = self.patience.pause(failed, fault.wait, random.random())
        if time.monotonic() > self._said:  # one line a minute says enough
            self._said = time.monotonic() + 60
            print(f"{where}: {fault}; asking again in {pause:.1f} s", file=sys.stderr)
        self.retry()
        await asyncio.sleep(pause)

    def retry(self) -> None:
        """Count a further attempt."""
        self._on_retry()

    def _succeed(self) -> None:
        self._since, self._served = time.monotonic(), True

    @contextmanager
    def _waiting(self) -> Iterator[asyncio.Future[str]]:
        """Watch the server while requests are waiting."""
        if not self._pending or self._dead is None:
            loop = asyncio.get_running_loop()
            self._since = time.monotonic()
            self._dead, self._watcher = loop.create_future(), loop.create_task(self._watch())
        self._pending += 1
        try:
            yield self._dead
        finally:
            self._pending -= 1
            if not self._pending and self._watcher is not None:
                self._watcher.cancel()

    async def _watch(self) -> None:
        limit = self.patience.give_up_after
        while True:
            await _until(lambda: self._since + limit / 2)
            at = self._since
            try:
                if self.alive is not None:
                    async with asyncio.timeout(at + limit - time.monotonic()):
                        await self.alive()
                        self._succeed()
            except TimeoutError:
                pass
            except Exception as error:
                self.fault = str(error)
            await asyncio.sleep(max(0.0, at + limit - time.monotonic()))
            if self._since == at:
                break
        before = "stopped answering: no" if self._served else "has served no"
        self.end(
            f"{self.where}: {before} completion for {limit:g} seconds (give_up_after); last: {self.fault}"
            f"{self.note()}; {_KEPT}"
        )


async def _until(due: Callable[[], float]) -> None:
    """Sleep until a time that may be put off meanwhile."""
    while (left := due() - time.monotonic()) > 0:
        await asyncio.sleep(left)


def times(number: int) -> str:
    """Return a number of attempts in words."""
    return "1 attempt" if number == 1 else f"{number} attempts"
