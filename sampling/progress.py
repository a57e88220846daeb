"""One progress bar for all stages: rate, tokens a second and time left; and the figures for the summary."""

from __future__ import annotations

import time
from typing import Any

from tqdm import tqdm


class Progress:
    """Counts what a stage has done.

    Args:
        stage: name in front of the bar.
        unit: what is counted.
        total: all there is to do.
        done: what an earlier run has done already.
    """

    def __init__(self, stage: str, unit: str, total: int, done: int = 0) -> None:
        self._bar = tqdm(desc=stage, unit=f" {unit}", total=total, initial=done, dynamic_ncols=True, mininterval=0.5)
        self._start, self._count, self._tokens = time.monotonic(), 0, 0

    def add(self, count: int, tokens: int = 0) -> None:
        """Count finished items and the tokens that were drawn or read for them."""
        self._count += count
        self.draw(tokens)
        self._bar.update(count)

    def draw(self, tokens: int, note: str = "") -> None:
        """Count tokens that were drawn or read for items that are not finished; ``note`` follows their rate."""
        self._tokens += tokens
        if self._tokens:
            rate = f"{self._tokens / (time.monotonic() - self._start):,.0f} tokens/s"
            self._bar.set_postfix_str(f"{rate}, {note}" if note else rate, refresh=False)

    def summary(self) -> dict[str, Any]:
        """Figures of this run: seconds, items and tokens (an earlier, killed run is not counted)."""
        return {
            "seconds": round(time.monotonic() - self._start, 2),
            "items_this_run": self._count,
            "tokens_this_run": self._tokens,
        }

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
