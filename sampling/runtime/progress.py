"""Show the progress of a stage, and keep its figures.

All stages share one bar with rates, prefix-cache hits and time left.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from sampling.engines.base import Usage


class Progress:
    """Count and show what a stage has done.

    Args:
        stage: name in front of the bar.
        unit: name of the counted items.
        total: number of items, including those of earlier runs.
        done: items that an earlier run has finished.
    """

    def __init__(self, stage: str, unit: str, total: int, done: int = 0) -> None:
        # A log file keeps every state of the bar, so update it rarely there.
        seconds = 0.5 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(
            desc=stage, unit=f" {unit}", total=total, initial=done, dynamic_ncols=True,
            mininterval=seconds, maxinterval=max(10.0, seconds),
        )  # fmt: skip
        self._start, self._count = time.monotonic(), 0
        self._counts = Counter[str](tokens=0)
        self._watched: list[tuple[Usage, Usage]] = []  # the growing usage, and a copy from the start
        self._engines: list[Any] = []

    def watch(self, engine: Any) -> None:
        """Show an engine's status, and its prefix-cache hits and retries if it counts them."""
        self._engines.append(engine)
        if (usage := getattr(engine, "usage", None)) is not None:
            self._watched.append((usage, replace(usage)))

    def add(self, count: int, **made: int) -> None:
        """Count finished items, and what was made for them (see :meth:`count`)."""
        self._count += count
        self.count(**made)
        self._bar.update(count)

    def count(self, **made: int) -> None:
        """Count what was made for items that may be unfinished.

        ``tokens`` are those sampled or read, ``labels`` those of steps.
        """
        self._counts.update(made)
        seconds = time.monotonic() - self._start or 1e-9
        shown = [f"{number / seconds:,.0f} {what}/s" for what, number in self._counts.items() if number]
        read, cached = self._read()
        if read:
            shown.append(f"{cached / read:.0%} of prompts cached")
        if retries := self._retries():
            shown.append(f"{retries} retries")
        shown += [status for engine in self._engines if (status := engine.status())]
        self._bar.set_postfix_str(", ".join(shown), refresh=False)

    def _read(self) -> tuple[int, int]:
        pairs = [
            (now.prompt_tokens - at.prompt_tokens, now.cached_tokens - at.cached_tokens) for now, at in self._watched
        ]
        return sum(read for read, _ in pairs), sum(cached for _, cached in pairs)

    def _retries(self) -> int:
        return sum(now.retries - at.retries for now, at in self._watched)

    def summary(self) -> dict[str, Any]:
        """Return the figures of this run: seconds, items, tokens.

        An earlier, killed run is not included.
        """
        figures = {"seconds": round(time.monotonic() - self._start, 2), "items_this_run": self._count}
        figures |= {f"{what}_this_run": number for what, number in self._counts.items()}
        read, cached = self._read()
        figures |= {"prompt_tokens_this_run": read, "cached_tokens_this_run": cached} if read else {}
        return figures | ({"retries_this_run": retries} if (retries := self._retries()) else {})

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
