"""Measure how much each of several workers does in a second."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Hashable

_SPAN = 10.0  # seconds over which a rate is measured at least


class Rates:
    """Measure what each of several workers does in a second, over the seconds since it was last shown.

    Args:
        unit: what they do, in the plural.
    """

    def __init__(self, unit: str) -> None:
        self.unit, self._shown = unit, ""
        self._since, self._done = time.monotonic(), Counter[Hashable]()

    def add(self, worker: Hashable, amount: int) -> None:
        """Count what a worker has done."""
        self._done[worker] += amount

    def show(self, workers: Collection[Hashable]) -> str:
        """Return the lowest and the highest rate of those workers, as of ten seconds ago at the latest.

        Empty for fewer than two, whose rate is that of all, and before there is one.
        """
        seconds = time.monotonic() - self._since
        if seconds >= _SPAN:
            rates = [self._done[worker] / seconds for worker in workers] or [0.0]
            low, high = (f"{rate:,.0f}" for rate in (min(rates), max(rates)))
            self._shown = f"{low if low == high else f'{low} to {high}'} {self.unit}/s each"
            self._since, self._done = time.monotonic(), Counter()
        return self._shown if len(workers) > 1 else ""
