"""Drive a model in this process: calls wait in a queue.

One pump submits them and steps the model. The pump is a thread, so that the event loop tokenizes, grades and writes
while the model computes (which releases the interpreter lock). A model whose weights belong to another thread, such as
one in training, is stepped by a task of the event loop instead, between other coroutines.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sampling.engines.base import Completion, Engine, Request, SamplingOptions, begun
from stepverify.data.encode import load_tokenizer
from stepverify.hub import local_model

_PATIENCE = 10.0  # seconds that closing waits for the current step; loading a model may take longer


@dataclass(slots=True, eq=False)
class Call:
    """Hold a request that waits for an engine.

    Attributes:
        request: the request.
        options: how it is sampled.
        future: future of the coroutine that waits.
        prefix: ids that every completion begins with.
        room: largest number of tokens to sample after them.
    """

    request: Request
    options: SamplingOptions
    future: asyncio.Future[Any]
    prefix: list[int]
    room: int = 0

    @property
    def read(self) -> list[int]:
        """Return the tokens before the first one to sample."""
        return self.request.prompt_ids + self.prefix


Outcome = tuple[Call, Any]
"""Pair a call with its result or exception."""


class Core(ABC):
    """Define the synchronous part of an engine, which only the pump calls.

    Attributes:
        tokenizer: the model's tokenizer.
        limit: longest prompt and completion, in tokens.
    """

    tokenizer: Any
    limit: int

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Tell whether a step would do anything."""

    @abstractmethod
    def submit(self, call: Call) -> None:
        """Accept a call; it runs when there is room."""

    @abstractmethod
    def step(self) -> list[tuple[Call, list[Completion]]]:
        """Advance each call by about one token; return the finished calls."""

    @abstractmethod
    def drop(self, calls: Sequence[Call]) -> None:
        """Forget calls, including finished and unknown ones."""


class Pump:
    """Move calls from an event loop to a core, and results back.

    Args:
        load: makes the core; the pump's own thread calls it at the first call.
        in_thread: False drives the core by a task of the caller's event loop.
    """

    def __init__(self, load: Callable[[], Core], *, in_thread: bool = True) -> None:
        self._load, self._in_thread = load, in_thread
        self._core: Core | None = None
        self._error: BaseException | None = None
        self._driver: threading.Thread | asyncio.Task[None] | None = None
        self._wake = threading.Condition()
        # Shared with the thread, under the lock of the condition:
        self._arrived: list[Call] = []
        self._dropped: list[Call] = []
        self._closing = False
        # Used by the event loop only:
        self._fresh: list[Call] = []

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        """Wait for the completions of a request."""
        if self._error is not None:
            raise self._error
        loop = asyncio.get_running_loop()
        call = Call(request, options, loop.create_future(), [])
        if not self._fresh:  # hand over all calls of one loop turn together, so that the first batch is full
            loop.call_soon(self._hand_over)
        self._fresh.append(call)
        try:
            completions: list[Completion] = await call.future
        except asyncio.CancelledError:
            with self._wake:
                self._dropped.append(call)
                self._wake.notify()
            raise
        return completions

    def _hand_over(self) -> None:
        fresh, self._fresh = [call for call in self._fresh if not call.future.done()], []
        with self._wake:
            error = self._error
            if error is None:
                self._arrived += fresh
                self._wake.notify()
        if error is not None:
            _settle([(call, error) for call in fresh])
            return
        if self._driver is not None and not (isinstance(self._driver, asyncio.Task) and self._driver.done()):
            return
        if self._in_thread:
            self._driver = threading.Thread(target=self._run, name="engine", daemon=True)
            self._driver.start()
        else:
            self._driver = asyncio.get_running_loop().create_task(self._run_between())

    async def aclose(self) -> None:
        """Drop all calls and end the thread."""
        fresh, self._fresh = self._fresh, []
        for call in fresh:
            call.future.cancel()
        driver = self._driver
        if isinstance(driver, threading.Thread):
            with self._wake:
                self._closing = True
                self._wake.notify()
            await asyncio.to_thread(driver.join, _PATIENCE)
            if driver.is_alive():  # it is loading a model, and ends after that, or with the program
                self._error = RuntimeError(f"{driver.name}: was closed while it loaded a model")
                return
            self._closing = False
        elif driver is not None:
            driver.cancel()
            await asyncio.wait([driver])
        self._driver = self._error = None

    # ── in the thread, or the task ────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        calls: set[Call] = set()
        while True:
            with self._wake:
                while not (self._closing or self._arrived or (self._core is not None and self._core.busy)):
                    self._wake.wait()
                if self._closing:
                    break
            if not self._advance(calls):
                break
        self._abandon(calls)

    async def _run_between(self) -> None:
        calls: set[Call] = set()
        try:
            while self._arrived or (self._core is not None and self._core.busy):
                if not self._advance(calls):
                    break
                await asyncio.sleep(0)
                await asyncio.sleep(0)  # the first turn delivers results, this one takes the calls that follow
        finally:
            self._abandon(calls)

    def _advance(self, calls: set[Call]) -> bool:
        """Submit new calls and step once; False if the core has failed."""
        with self._wake:
            arrived, self._arrived = self._arrived, []
            dropped, self._dropped = self._dropped, []
        calls.update(arrived)
        outcomes: list[Outcome] = []
        try:
            if self._core is None:
                self._core = self._load()
            for call in arrived:
                outcomes += _submit(self._core, call)
            if dropped:
                self._core.drop(dropped)
                calls.difference_update(dropped)
            if self._core.busy:
                outcomes += self._core.step()
        except BaseException as error:
            with self._wake:
                self._error = error
            _deliver([*outcomes, *((call, error) for call in calls)])
            return False
        calls.difference_update(call for call, _ in outcomes)
        _deliver(outcomes)
        return True

    def _abandon(self, calls: set[Call]) -> None:
        """Drop all calls from the core, and cancel those that wait."""
        with self._wake:
            calls.update(self._arrived)
            self._arrived, self._dropped = [], []
        if self._core is not None and calls:
            if self._error is None:
                self._core.drop(list(calls))
            else:
                self._core = None
        _deliver([(call, self._error or asyncio.CancelledError()) for call in calls])


def _submit(core: Core, call: Call) -> list[Outcome]:
    """Submit a call to the core.

    Returns its outcome at once if there is nothing to sample.
    """
    try:
        known, call.room = begun(core.tokenizer, call.request, call.options, core.limit)
    except Exception as error:
        return [(call, error)]
    if not call.room:
        return [(call, [known] * call.request.n)]
    call.prefix = known.token_ids or []
    core.submit(call)
    return []


def _deliver(outcomes: Sequence[Outcome]) -> None:
    """Deliver results to the event loops that wait for them."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome[0].future.get_loop(), []).append(outcome)
    for loop, mine in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nothing waits
            loop.call_soon_threadsafe(_settle, mine)


def _settle(outcomes: Sequence[Outcome]) -> None:
    for call, result in outcomes:
        if call.future.done():
            continue
        if isinstance(result, asyncio.CancelledError):
            call.future.cancel()
        elif isinstance(result, BaseException):
            call.future.set_exception(result)
        else:
            call.future.set_result(result)


def load_shared_tokenizer(model: str) -> Any:
    """Load a tokenizer that event loop and pump may use together.

    If its file switches on truncation or padding, the first encoded text would switch them off, which fails while
    another thread decodes; so they are switched off here.
    """
    tokenizer = load_tokenizer(local_model(model, weights=False))
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        backend.no_truncation()
        backend.no_padding()
    return tokenizer


class InProcessEngine(Engine):
    """Run a model in this process, loaded at the first call."""

    def __init__(self, *, in_thread: bool = True) -> None:
        self._in_thread = in_thread
        self._pump = Pump(self._load, in_thread=in_thread)

    def __getstate__(self) -> dict[str, Any]:
        """Return the arguments without the pump."""
        return {key: value for key, value in super().__getstate__().items() if key != "_pump"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over arguments, with a pump of its own."""
        vars(self).update(state)
        self._pump = Pump(self._load, in_thread=self._in_thread)

    @abstractmethod
    def _load(self) -> Core:
        """Load the model, in the thread that will use it."""

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        """Return the completions of a request."""
        return await self._pump.complete(request, options)

    async def aclose(self) -> None:
        """Drop calls in flight and end the pump; the model stays loaded."""
        await self._pump.aclose()
