"""Run comparisons in a worker process of the grader.

Importing this module loads Math-Verify and warms it up. The fork server imports it once, so every worker starts warm
within milliseconds, and killing a worker is cheap.
"""

from __future__ import annotations

import contextlib
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
    # During a long C call of SymPy Python handles no signals: let SIGTERM kill at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(ImportError, ValueError, OSError):  # no such limit on this system, or already a lower one
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def compare_all(pairs: list[tuple[str, str]], budget: float) -> list[bool]:
    """Compare the pairs of one task until ``budget`` seconds are used.

    Returns the verdicts so far, at least one. A comparison that exhausts memory or stack is False.
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
