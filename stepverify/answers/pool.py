"""Grade many answers in worker processes, with a limit of CPU time per comparison."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stepverify.answers.compare import answer_key, settle
from stepverify.records import InputError

if TYPE_CHECKING:
    import pebble

Pair = tuple[str, str]

MAX_CHUNK = 16
"""Pairs per task: enough to hide the cost of messages, few enough to repeat if one pair hangs."""
MAX_RESTARTS = 5
"""Consecutive failures of a pool after which its workers are assumed to be unable to start."""
WALL_FACTOR = 20
"""Seconds of wall time that a task may take per second of its limit: a stopped worker uses no CPU time."""

# Not fork, which would copy held locks of torch's and tokenizers' threads.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_MAIN_LOCK = threading.Lock()


class Grader:
    """Grade answers in worker processes, each comparison under a time limit.

    The processes start with the first pair that needs computer algebra, and know nothing of the
    program that started them: they import neither its main script nor torch.

    Args:
        num_workers: worker processes; None for the cores that this process may use.
        time_limit: seconds of CPU time that one comparison may take; verdicts do not depend on the machine's load.

    Attributes:
        num_timeouts: comparisons given up so far: out of time, or their worker died of them twice.

    >>> with Grader(num_workers=1) as grader:
    ...     grader.grade([("1,000", "1000"), ("7", None)]), grader.classes(["1/2", "x", "0.5", None])
    ([True, False], [0, 1, 0, None])
    """

    def __init__(self, num_workers: int | None = None, time_limit: float = 3.0) -> None:
        if num_workers is not None and num_workers < 1:
            raise InputError(f"num_workers: expected at least 1, got {num_workers}")
        if not time_limit > 0:
            raise InputError(f"time_limit: expected a positive number of seconds, got {time_limit}")
        self.num_workers = num_workers or _num_cores()
        self.time_limit = time_limit
        self.num_timeouts = 0
        self._pool: pebble.ProcessPool | None = None
        self._lock = threading.Lock()  # several threads may grade

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the worker processes; the next pair that needs them restarts them."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()

    def grade(self, pairs: Iterable[tuple[str | None, str | None]]) -> list[bool | None]:
        """Compare (gold, predicted) pairs; see :func:`stepverify.answers.equivalent`.

        Returns:
            One verdict per pair, in order. None if the comparison exceeded its time limit; False if an answer is
                missing or empty.
        """
        pairs = list(pairs)
        verdicts = [_settled(gold, predicted) for gold, predicted in pairs]
        open_pairs = [
            (gold, predicted)
            for (gold, predicted), verdict in zip(pairs, verdicts, strict=True)
            if verdict is None and gold is not None and predicted is not None
        ]
        if not open_pairs:
            return verdicts
        with self._lock:
            found = self._compare(list(dict.fromkeys(open_pairs)))
        remaining = iter(open_pairs)
        return [found[next(remaining)] if verdict is None else verdict for verdict in verdicts]

    def classes(self, answers: Sequence[str | None]) -> list[int | None]:
        """Group equal answers, for voting.

        Equality of answers is not transitive (``20%`` equals both 20 and 1/5), so the class of an answer is that of the
        first representative it equals, where the representative of a class is its first answer. This depends only on
        the order of the answers, except for comparisons that exceed their time limit: those count as not equal.

        Returns:
            One class per answer, numbered from 0 by first appearance; None for a missing or empty answer: no vote.
        """
        kinds = [(_key(answer) or answer.strip()) if answer and answer.strip() else None for answer in answers]
        unassigned = list(dict.fromkeys(kind for kind in kinds if kind is not None))
        classes: dict[str, int] = {}
        number = 0
        while unassigned:  # each round finds the whole class of one representative
            representative, *rest = unassigned
            classes[representative] = number
            equal = self.grade((representative, kind) for kind in rest)
            classes.update((kind, number) for kind, same in zip(rest, equal, strict=True) if same)
            unassigned = [kind for kind, same in zip(rest, equal, strict=True) if not same]
            number += 1
        return [None if kind is None else classes[kind] for kind in kinds]

    # ── worker processes ──────────────────────────────────────────────────────────────────────────

    def _compare(self, pairs: list[Pair]) -> dict[Pair, bool | None]:
        """Compare in chunks, then the pairs of failed chunks one by one.

        A worker returns a chunk unfinished after half the time limit, so a chunk fails only if one of its pairs is
        slow. A worker may also die for reasons unrelated to its pair, so a single pair gets a second try, unless it
        timed out.
        """
        found: dict[Pair, bool | None] = {}
        failed: list[Pair] = []
        remaining = pairs
        while remaining:
            size = max(1, min(MAX_CHUNK, -(-len(remaining) // (4 * self.num_workers))))
            chunks = [remaining[start : start + size] for start in range(0, len(remaining), size)]
            remaining = []
            for chunk, verdicts in zip(chunks, self._run(chunks), strict=True):
                if isinstance(verdicts, list):
                    found.update(zip(chunk, verdicts, strict=False))
                    remaining += chunk[len(verdicts) :]
                elif len(chunk) == 1 and _is_timeout(verdicts):
                    found[chunk[0]] = None
                else:
                    failed += chunk
        for last in (False, True):
            lone, failed = failed, []
            for pair, verdict in zip(lone, self._run([[pair] for pair in lone]), strict=True):
                if isinstance(verdict, list):
                    found[pair] = verdict[0]
                elif last or _is_timeout(verdict):
                    found[pair] = None
                else:
                    failed.append(pair)
        self.num_timeouts += sum(verdict is None for verdict in found.values())
        return found

    def _run(self, chunks: list[list[Pair]]) -> list[list[bool] | BaseException]:
        """Run every chunk in a worker; return its verdicts, or the error.

        Raises:
            RuntimeError: the workers cannot start.
        """
        from pebble import ProcessExpired

        results: dict[int, list[bool] | BaseException] = {}
        num_breaks = 0
        while len(results) < len(chunks):
            before = len(results)
            try:
                schedule = self._scheduler()
                futures = {i: schedule(chunk) for i, chunk in enumerate(chunks) if i not in results}
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
                        "stepverify.answers.worker'` succeed in this environment?"
                    ) from error
            except BaseException:
                self.close()  # Ctrl-C: leave no task running
                raise
        return [results[i] for i in range(len(chunks))]

    def _scheduler(self) -> Callable[[list[Pair]], concurrent.futures.Future[list[bool]]]:
        pool = self._pool
        if pool is None:
            import pebble

            pool = self._pool = pebble.ProcessPool(
                max_workers=self.num_workers, initializer=_initialize, context=_context()
            )
        wall = WALL_FACTOR * self.time_limit
        return lambda chunk: pool.schedule(_compare_all, args=(chunk, self.time_limit), timeout=wall)


def _initialize() -> None:
    from stepverify.answers import worker

    worker.initialize()


def _compare_all(pairs: list[Pair], limit: float) -> list[bool]:
    from stepverify.answers import worker

    return worker.compare_all(pairs, limit)


def _is_timeout(reason: BaseException) -> bool:
    """Tell whether a task ended for its CPU time, by the worker's own timer.

    That it took too long by the clock says something of the machine, as a worker's death does, and is tried again.
    """
    return getattr(reason, "exitcode", 0) == -signal.SIGPROF


def _settled(gold: str | None, predicted: str | None) -> bool | None:
    """Compare what needs no computer algebra; None for the rest, and for what is nested too deeply for this process."""
    with contextlib.suppress(RecursionError):
        return settle(gold, predicted)
    return None


def _key(answer: str) -> str | None:
    with contextlib.suppress(RecursionError):
        return answer_key(answer)
    return None


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _context() -> Any:
    context = multiprocessing.get_context(_METHOD)
    if _METHOD == "forkserver":
        context.set_forkserver_preload(["stepverify.answers.worker"])
    context = copy.copy(context)  # the original is global
    context.Process = _WorkerProcess  # type: ignore[attr-defined]
    return context


class _WorkerProcess(multiprocessing.get_context(_METHOD).Process):  # type: ignore[misc]
    """Start a process that does not import the program's main script.

    By default it would: a script without a main guard would then restart itself in every worker, one with a guard would
    import torch there, and one read from standard input would fail.
    """

    def start(self) -> None:
        with _main_hidden():
            super().start()


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    # multiprocessing finds the script by these two names. The stand-in keeps all others, so that
    # another thread that pickles something of __main__ meanwhile does not notice.
    with _MAIN_LOCK:
        main = sys.modules["__main__"]
        stand_in = types.ModuleType("__main__")
        vars(stand_in).update({k: v for k, v in vars(main).items() if k not in ("__file__", "__spec__")})
        sys.modules["__main__"] = stand_in
        try:
            yield
        finally:
            sys.modules["__main__"] = main
