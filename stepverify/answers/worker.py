"""Read and compare answers in a worker process of the grader.

Standard library only, until a comparison needs computer algebra.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from stepverify.answers import compare
from stepverify.answers.compare import answer_key
from stepverify.answers.extract import Fallback, concluded_number, extract_answer, last_number

Pair = tuple[str, str]

MEMORY_LIMIT = 4 << 30
"""Address space of a worker in bytes, so that a tower of powers fails without exhausting the machine."""

_FALLBACKS: dict[str, Callable[[str], str | None]] = {
    "no_answer": lambda text: None, "last_number": last_number, "conclusion": concluded_number,
}  # fmt: skip


class Failure(enum.Enum):
    """Stand for the result of a text that could not be read within its limits."""

    GIVEN_UP = enum.auto()


def initialize(algebra: bool) -> None:
    """Prepare a new worker process."""
    # During a long C call of SymPy or a pattern Python handles no signals: let these kill at once.
    for kill in (signal.SIGTERM, signal.SIGPROF):
        signal.signal(kill, signal.SIG_DFL)
    _end_with_program()
    if algebra:  # loaded by the fork server, where there is one
        from stepverify.answers import warm_up  # noqa: F401
    with contextlib.suppress(ImportError, ValueError, OSError):  # no such limit on this system, or already a lower one
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _end_with_program() -> None:
    """Have the kernel end this process after the program that uses it, however that ends, and after its fork server.

    The program holds the write end of a pipe; its closing sends SIGIO, which ends a process even in a long C call. The
    signal for the death of a parent (Linux) alone is not enough: the parent is a fork server, which lives as long as
    its workers.
    """
    program = multiprocessing.parent_process()
    assert program is not None
    with contextlib.suppress(ImportError, AttributeError, OSError):  # not on this system
        import fcntl

        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(program.sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(program.sentinel, fcntl.F_SETFL, fcntl.fcntl(program.sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() == 1 or not program.is_alive():  # ended meanwhile
        os._exit(1)


def work(function: Callable[[Any], Any], items: list[Any], limit: float) -> list[Any]:
    """Apply a function to the items of one task until half of ``limit`` is used.

    Returns the results so far, at least one. Time is CPU time of this process, so the load of the machine decides
    nothing. An item that takes more than ``limit`` ends the process (SIGPROF); one that exhausts memory or stack is
    given up.
    """
    end = time.process_time() + limit / 2
    results: list[Any] = []
    for item in items:
        signal.setitimer(signal.ITIMER_PROF, limit)
        try:
            results.append(function(item))
        except (MemoryError, RecursionError):
            results.append(Failure.GIVEN_UP)
        if time.process_time() > end:
            break
    signal.setitimer(signal.ITIMER_PROF, 0)
    return results


def settle(pair: Pair) -> bool | None:
    """Compare without computer algebra; False if that exhausts memory or stack, None if it is needed."""
    with contextlib.suppress(MemoryError, RecursionError):
        return compare.settle(*pair)
    return False


def equivalent(pair: Pair) -> bool:
    """Compare by all means; False if that exhausts memory or stack."""
    with contextlib.suppress(MemoryError, RecursionError):
        return compare.equivalent(*pair)
    return False


def key(answer: str) -> str | None:
    """Return the key of an answer."""
    return answer_key(answer)


def extract(text: str, fallback: Fallback) -> str | None:
    """Extract the answer that a text states, else that of the fallback."""
    return extract_answer(text) or _FALLBACKS[fallback](text)
