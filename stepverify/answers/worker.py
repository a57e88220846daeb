"""What a worker process of the grader runs. Importing it loads Math-Verify and warms it up.

The fork server imports it once, and every worker is then born warm within milliseconds; that is
what makes it cheap to kill one.
"""

from __future__ import annotations

import contextlib
import signal
import time

from stepverify.answers.compare import equivalent

MEMORY_LIMIT = 4 << 30
"""Bytes of address space of a worker: a tower of powers fails, and not the machine."""

# Builds Math-Verify's patterns and fills the tables of its parser, which learns from what it reads.
for _gold, _predicted in (
    (r"\frac{x}{\sqrt{2}} + 1", r"\frac{\sqrt{2} x}{2} - y^2"),
    (r"(-\infty, 2] \cup (3, 5)", r"\{1, 2\pi\}"),
    (r"2x^2 - 2x + 3", r"x^{10} - \frac{\sin^2 x}{2}"),
    (r"x = -2", r"x \geq 30^\circ"),
):
    equivalent(_gold, _predicted)


def initialize() -> None:
    """Prepare a new worker process."""
    # SymPy may sit in one long C call, where Python handles no signal: let SIGTERM kill at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(ImportError, ValueError, OSError):  # no such limit on this system, or a lower one already
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def compare_all(pairs: list[tuple[str, str]], budget: float) -> list[bool]:
    """Compare the pairs of one task until ``budget`` seconds are used up: as many verdicts as it got to, one at least.

    What exhausts the memory or the stack equals nothing.
    """
    end = time.monotonic() + budget
    verdicts: list[bool] = []
    for gold, predicted in pairs:
        verdicts.append(_compare(gold, predicted))
        if time.monotonic() > end:
            break
    return verdicts


def _compare(gold: str, predicted: str) -> bool:
    try:
        return equivalent(gold, predicted)
    except (MemoryError, RecursionError):
        return False
