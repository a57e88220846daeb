"""Say so when many solutions state no answer: silence would turn a format into incorrect labels."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

LIMIT = 0.05
"""Share of solutions without an answer from which on a stage warns."""
_SHOWN, _ENDING = 3, 120


@dataclass
class Unstated:
    """Counts texts in which no final answer was found, and keeps the endings of the first three.

    Attributes:
        what: the texts, for the message: ``solutions`` or ``rollouts``.
        count: texts that ended by themselves and state no answer.
        total: all texts, those that were cut off included.
    """

    what: str
    count: int = 0
    total: int = 0
    endings: list[str] = field(default_factory=list)

    def add(self, text: str, *, stated: bool) -> None:
        """Count one text; ``stated``: it states an answer, or was cut off before it could."""
        self.total += 1
        if not stated:
            self.count += 1
            if len(self.endings) < _SHOWN:
                ending = " ".join(text.split())
                self.endings.append(f"…{ending[-_ENDING:]}" if len(ending) > _ENDING else ending)

    def warn(self, advice: str) -> None:
        """Print a warning with three endings where more than 5 % state no answer."""
        if self.count > LIMIT * self.total:
            share = f"{self.count / self.total:.1%}"
            lines = "".join(f"\n    {ending}" for ending in self.endings)
            print(
                f"warning: {self.count:,} of {self.total:,} {self.what} ({share}) state no answer "
                f"that could be found; {advice}. They end like this:{lines}",
                file=sys.stderr,
            )
