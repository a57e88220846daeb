"""Apply functions to untrusted texts in worker processes, with a limit of CPU time for each."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepverify.answers import processes, worker
from stepverify.answers.worker import Failure

if TYPE_CHECKING:
    import pebble

MAX_RESTARTS = 5
"""Consecutive failures of a pool after which its workers are assumed to be unable to start."""
WALL_FACTOR = 20
"""Seconds of wall time that a task may take per second of its limit: a stopped worker uses no CPU time."""


@dataclass(frozen=True)
class Operation:
    """Describe what workers do with texts.

    Attributes:
        function: is applied to each item.
        largest: items per task: enough to hide the cost of messages, few enough to repeat if one item hangs.
        smallest: items per task, even if some workers then have none.
        algebra: it needs workers with computer algebra.
    """

    function: Callable[[Any], Any]
    largest: int
    smallest: int
    algebra: bool = False


class LimitedPool:
    """Apply operations to texts in worker processes, which start with the first of them.

    Args:
        num_workers: worker processes; None for the cores that this process may use.
        time_limit: seconds of CPU time that one item may take.

    Attributes:
        num_failures: items given up so far: out of time, or their worker died of them twice.
    """

    def __init__(self, num_workers: int | None, time_limit: float) -> None:
        self.num_workers = num_workers or _num_cores()
        self.time_limit = time_limit
        self.num_failures = 0
        self._pool: pebble.ProcessPool | None = None
        self._algebra = False  # whether the workers have it loaded
        self._lock = threading.Lock()  # several threads may grade

    @property
    def has_algebra(self) -> bool:
        """Return whether the workers have computer algebra loaded, or would start with it at once."""
        return self._algebra if self._pool else processes.has_algebra()

    def close(self) -> None:
        """Stop the worker processes; the next item restarts them."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()

    def apply(self, operation: Operation, items: list[Any]) -> dict[Any, Any]:
        """Work on items in chunks, then on those of failed chunks one by one; what is given up is a failure.

        A worker returns a chunk unfinished after half the time limit, so a chunk fails only if one of its items is
        slow. A worker may also die for reasons unrelated to its item, so a single item gets a second try, unless it
        timed out.
        """
        if not items:
            return {}
        with self._lock:
            found: dict[Any, Any] = {}
            failed: list[Any] = []
            remaining = items
            while remaining:
                share = -(-len(remaining) // (4 * self.num_workers))
                size = min(operation.largest, max(operation.smallest, share))
                chunks = [remaining[start : start + size] for start in range(0, len(remaining), size)]
                remaining = []
                for chunk, results in zip(chunks, self._run(operation, chunks), strict=True):
                    if isinstance(results, list):
                        found.update(zip(chunk, results, strict=False))
                        remaining += chunk[len(results) :]
                    elif len(chunk) == 1 and _is_timeout(results):
                        found[chunk[0]] = Failure.GIVEN_UP
                    else:
                        failed += chunk
            for last in (False, True):
                lone, failed = failed, []
                for item, results in zip(lone, self._run(operation, [[item] for item in lone]), strict=True):
                    if isinstance(results, list):
                        found[item] = results[0]
                    elif last or _is_timeout(results):
                        found[item] = Failure.GIVEN_UP
                    else:
                        failed.append(item)
            self.num_failures += sum(result is Failure.GIVEN_UP for result in found.values())
        return found

    def _run(self, operation: Operation, chunks: list[list[Any]]) -> list[list[Any] | BaseException]:
        """Work on every chunk in a worker; return its results, or the error.

        Raises:
            RuntimeError: the workers cannot start.
        """
        from pebble import ProcessExpired

        results: dict[int, list[Any] | BaseException] = {}
        num_breaks = 0
        while len(results) < len(chunks):
            before = len(results)
            try:
                pool = self._started(operation.algebra)
                wall = WALL_FACTOR * self.time_limit
                futures = {
                    i: pool.schedule(worker.work, args=(operation.function, chunk, self.time_limit), timeout=wall)
                    for i, chunk in enumerate(chunks)
                    if i not in results
                }
                for i, future in futures.items():
                    try:
                        results[i] = future.result()
                    except (concurrent.futures.TimeoutError, ProcessExpired) as error:
                        results[i] = error
            except (concurrent.futures.BrokenExecutor, RuntimeError) as error:
                # Pebble breaks a pool when a worker dies between two tasks.
                num_breaks = num_breaks + 1 if len(results) == before else 1
                self.close()
                if num_breaks > MAX_RESTARTS:
                    raise RuntimeError(
                        "the worker processes that grade answers do not start; does `python -c 'import "
                        "stepverify.answers.warm_up'` succeed in this environment?"
                    ) from error
            except BaseException:
                self.close()  # Ctrl-C: leave no task running
                raise
        return [results[i] for i in range(len(chunks))]

    def _started(self, algebra: bool) -> pebble.ProcessPool:
        """Return the pool, with computer algebra if that is asked for or costs nothing."""
        if self._pool is not None and algebra and not self._algebra:
            self.close()
        if self._pool is None:
            import pebble

            self._algebra = algebra or processes.has_algebra()
            self._pool = pebble.ProcessPool(
                max_workers=self.num_workers, initializer=worker.initialize, initargs=(self._algebra,),
                context=processes.context(self._algebra),
            )  # fmt: skip
        return self._pool


def _is_timeout(reason: BaseException) -> bool:
    """Tell whether a task ended for its CPU time, by the worker's own timer.

    That it took too long by the clock says something of the machine, as a worker's death does, and is tried again.
    """
    return getattr(reason, "exitcode", 0) == -signal.SIGPROF


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
