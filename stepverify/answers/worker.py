"""Run comparisons in a worker process of the grader.

Importing this module loads Math-Verify and warms it up. The fork server imports it once, so every worker starts warm
within milliseconds, and killing a worker is cheap.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time

from stepverify.answers.compare import equivalent

MEMORY_LIMIT = 4 << 30
"""Address space of a worker in bytes, so that a tower of powers fails without exhausting the machine."""

# Compiles Math-Verify's patterns and fills its parser's prediction tables, which grow with use.
for _gold, _predicted in (
    (r"\frac{x}{\sqrt{2}} + 1", r"\frac{\sqrt{2} x}{2} - y^2"),
    (r"(-\infty, 2] \cup (3, 5)", r"\{1, 2\pi\}"),
    (r"2x^2 - 2x + 3", r"x^{10} - \frac{\sin^2 x}{2}"),
    (r"x = -2", r"x \geq 30^\circ"),
):
    equivalent(_gold, _predicted)


def initialize() -> None:
    """Prepare a new worker process."""
    # During a long C call of SymPy Python handles no signals: let these kill at once.
    for kill in (signal.SIGTERM, signal.SIGPROF):
        signal.signal(kill, signal.SIG_DFL)
    _end_with_parent()
    with contextlib.suppress(ImportError, ValueError, OSError):  # no such limit on this system, or already a lower one
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _end_with_parent() -> None:
    """Have the kernel end this process after its parent, however that ends (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:  # it has ended meanwhile
        os._exit(1)


def compare_all(pairs: list[tuple[str, str]], limit: float) -> list[bool]:
    """Compare the pairs of one task until half of ``limit`` is used.

    Returns the verdicts so far, at least one. Time is CPU time of this process, so the load of the machine decides
    nothing. A comparison that takes more than ``limit`` ends the process (SIGPROF); one that exhausts memory or stack
    is False.
    """
    end = time.process_time() + limit / 2
    verdicts: list[bool] = []
    for gold, predicted in pairs:
        signal.setitimer(signal.ITIMER_PROF, limit)
        verdicts.append(_compare(gold, predicted))
        if time.process_time() > end:
            break
    signal.setitimer(signal.ITIMER_PROF, 0)
    return verdicts


def _compare(gold: str, predicted: str) -> bool:
    try:
        return equivalent(gold, predicted)
    except (MemoryError, RecursionError):
        return False
