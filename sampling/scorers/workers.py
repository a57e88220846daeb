"""Run models that score, in this process or in their own.

Waiting calls are batched.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from sampling.engines.base import Usage
from stepverify.records import InputError, Solution

Stream = Callable[[Sequence[Solution], Callable[[int, int], None]], Iterator[tuple[int, list[float]]]]
"""Yield the index and the values of each solution that can be scored, and call the second argument with the tokens of
these solutions, and how many of them were not computed."""
Scored = tuple[list[list[float]], Usage]
"""Values of each solution of a batch, and the tokens that it took."""

BATCH = 128  # solutions: calls are joined until a batch has this many
_SECONDS = 5.0  # given to a process to end by itself


class Worker(Protocol):
    """Score one batch at a time, in the calling thread."""

    def run(self, solutions: list[Solution]) -> Scored:
        """Score solutions; the model is loaded with the first ones."""
        ...

    def close(self) -> None:
        """Make a running batch fail soon; called from another thread."""
        ...


class Closed(Exception):
    """Signal that the scorer was closed while it scored."""


class LocalWorker:
    """Score with a model in this process.

    Args:
        build: loads the model.
    """

    def __init__(self, build: Callable[[], Stream]) -> None:
        self._build, self._closed = build, False
        self._stream: Stream | None = None

    def run(self, solutions: list[Solution]) -> Scored:
        """Score solutions, and stop after a pack if the worker was closed."""
        stream = self._stream = self._stream or self._build()
        values: list[list[float]] = [[] for _ in solutions]
        usage = Usage()
        for i, along in stream(solutions, usage.count):
            if self._closed:
                raise Closed
            values[i] = along
        return values, usage

    def close(self) -> None:
        """Stop after the current pack."""
        self._closed = True


class ProcessWorker:
    """Score with a model in a process of its own.

    The process ends with this one, however this one ends.

    Args:
        build: loads the model there; pickled.
        name: model and device, for messages.
        daemon: the process may not start others.
    """

    def __init__(self, build: Callable[[], Stream], name: str, daemon: bool = True) -> None:
        self._build, self.name, self._daemon = build, name, daemon
        self._process: Any = None
        self._connection: Any = None
        self._lock, self._closed = threading.Lock(), False

    def run(self, solutions: list[Solution]) -> Scored:
        """Send solutions to the process, and wait for their values.

        Raises:
            InputError: the process ended, or reported bad input.
        """
        with self._lock:
            if self._closed:
                raise Closed
            if self._process is None:
                self._start()
        with contextlib.suppress(OSError):  # the process has ended; its final message is read below
            self._connection.send(solutions)
        try:
            kind, result = self._connection.recv()
        except (EOFError, OSError):
            if self._closed:
                raise Closed from None
            raise InputError(
                f"{self.name}: {self._ending()}; scored solutions are kept; run the stage again to continue"
            ) from None
        if kind == "values":
            return result
        if kind == "input":
            raise InputError(result)
        raise RuntimeError(f"{self.name}: its process failed:\n{result}")

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork copies CUDA's state and the locks of threads
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._build), name=self.name, daemon=self._daemon)
        # Ctrl-C reaches every process of a terminal; only this one handles it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def _ending(self) -> str:
        self._process.join(_SECONDS)
        code = self._process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"its process was ended by {name}" + (" (memory may be short)" if name == "SIGKILL" else "")
        return f"its process ended with exit code {code}"

    def close(self) -> None:
        """End the process, and wait until it has ended."""
        with self._lock:
            self._closed = True
            if self._process is None:
                return
        self._process.terminate()
        self._process.join(_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()


def _serve(connection: Connection, build: Callable[[], Stream]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = LocalWorker(build)
    # Receive before sending: if the process ended with unread solutions, its message would be lost.
    with contextlib.suppress(EOFError, OSError):
        while True:
            solutions = connection.recv()
            try:
                answer: tuple[str, Any] = "values", worker.run(solutions)
            except InputError as error:
                answer = "input", str(error)
            except Exception:
                answer = "error", traceback.format_exc()
            connection.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@dataclass(eq=False, slots=True)
class _Call:
    solutions: Sequence[Solution]
    values: asyncio.Future[list[list[float]]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Pool:
    """Distribute waiting calls over workers, in batches.

    A batch takes whole calls in order until it has 128 solutions. So a call of 128 solutions or more is a batch by
    itself, and gives the same values with any number of workers. A worker loads its model with the first batch that
    finds all others busy.

    Args:
        workers: one for each device.
        usage: counts the tokens that are read.
        sticky: calls of a problem go to the worker that read it before, whose prefix cache knows it, unless another one
            would have nothing to do.
    """

    def __init__(self, workers: Sequence[Worker], usage: Usage, sticky: bool = False) -> None:
        self._workers, self._usage, self._sticky = list(workers), usage, sticky
        self._homes: dict[str, Worker] = {}
        self._idle = self._workers[::-1]
        self._waiting = deque[_Call]()
        self._running = set[asyncio.Task[None]]()
        self._threads = ThreadPoolExecutor(len(self._workers), "scorer")
        self._failure: BaseException | None = None

    async def score(self, solutions: Sequence[Solution]) -> list[list[float]]:
        """Score solutions when their turn comes.

        Raises:
            InputError: a worker failed, now or before.
        """
        if self._failure is not None:
            raise self._failure
        call = _Call(solutions)
        self._waiting.append(call)
        if self._idle:
            home = self._home(call)
            self._idle.remove(worker := home if home in self._idle else self._idle[-1])
            task = asyncio.create_task(self._work(worker))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await call.values

    async def _work(self, worker: Worker) -> None:
        await asyncio.sleep(0)  # calls made at the same time share a batch
        loop = asyncio.get_running_loop()
        while calls := self._next(worker):
            together = [solution for call in calls for solution in call.solutions]
            try:
                found, read = await loop.run_in_executor(self._threads, worker.run, together)
            except Exception as error:
                self._failure = error
                for call in (*calls, *self._waiting):
                    if not call.values.done():
                        call.values.set_exception(error)
                return
            self._usage.count(read.prompt_tokens, read.cached_tokens)
            values = iter(found)
            for call in calls:
                own = [next(values) for _ in call.solutions]
                if not call.values.done():
                    call.values.set_result(own)
        self._idle.append(worker)

    def _next(self, worker: Worker) -> list[_Call]:
        waiting = [call for call in self._waiting if not call.values.done()]  # others were cancelled by their callers
        chosen = [call for call in waiting if self._home(call) in (worker, None)] or waiting
        sizes = accumulate((len(call.solutions) for call in chosen), initial=0)
        calls = [call for call, before in zip(chosen, sizes, strict=False) if before < BATCH]
        self._waiting = deque(call for call in waiting if call not in calls)
        if self._sticky:
            self._homes |= {solution.problem_id: worker for call in calls for solution in call.solutions[:1]}
        return calls

    def _home(self, call: _Call) -> Worker | None:
        return self._homes.get(call.solutions[0].problem_id) if call.solutions else None

    def close(self) -> None:
        """End all processes, and wait for the pack in this process."""
        self._failure = self._failure or Closed()
        for worker in self._workers:
            worker.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._workers.clear()
        self._idle.clear()
