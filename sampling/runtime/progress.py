"""One progress bar for all stages: rates, cache hits and time left; and the figures for the summary."""

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
    """Counts what a stage has done.

    Args:
        stage: name in front of the bar.
        unit: what is counted.
        total: all there is to do.
        done: what an earlier run has done already.
    """

    def __init__(self, stage: str, unit: str, total: int, done: int = 0) -> None:
        # A log file keeps every state of the bar, so it gets few of them.
        seconds = 0.5 if sys.stderr.isatty() else 30.0
        self._bar = tqdm(
            desc=stage, unit=f" {unit}", total=total, initial=done, dynamic_ncols=True,
            mininterval=seconds, maxinterval=max(10.0, seconds),
        )  # fmt: skip
        self._start, self._count = time.monotonic(), 0
        self._counts = Counter[str](tokens=0)
        self._watched: list[tuple[Usage, Usage]] = []  # as it grows, and as it was at first

    def watch(self, engine: Any) -> None:
        """Show what the prefix cache of an engine has, where the engine knows it."""
        if (usage := getattr(engine, "usage", None)) is not None:
            self._watched.append((usage, replace(usage)))

    def add(self, count: int, **made: int) -> None:
        """Count finished items, and what was made for them as :meth:`draw` does."""
        self._count += count
        self.draw(**made)
        self._bar.update(count)

    def draw(self, **made: int) -> None:
        """Count what was made for items that may not be finished: ``tokens``, sampled or read; ``labels``."""
        self._counts.update(made)
        seconds = time.monotonic() - self._start or 1e-9
        shown = [f"{number / seconds:,.0f} {what}/s" for what, number in self._counts.items() if number]
        read, cached = self._read()
        if read:
            shown.append(f"{cached / read:.0%} of prompts cached")
        self._bar.set_postfix_str(", ".join(shown), refresh=False)

    def _read(self) -> tuple[int, int]:
        pairs = [
            (now.prompt_tokens - at.prompt_tokens, now.cached_tokens - at.cached_tokens) for now, at in self._watched
        ]
        return sum(read for read, _ in pairs), sum(cached for _, cached in pairs)

    def summary(self) -> dict[str, Any]:
        """Figures of this run: seconds, items, tokens (an earlier, killed run is not counted)."""
        figures = {"seconds": round(time.monotonic() - self._start, 2), "items_this_run": self._count}
        figures |= {f"{what}_this_run": number for what, number in self._counts.items()}
        read, cached = self._read()
        return figures | ({"prompt_tokens_this_run": read, "cached_tokens_this_run": cached} if read else {})

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
