"""Warn if many solutions state no answer.

Otherwise an unexpected answer format would silently become incorrect labels.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

LIMIT = 0.05
"""Warn above this share of texts without an answer."""
_SHOWN, _ENDING = 3, 120


@dataclass
class Unstated:
    """Count texts without a final answer, and keep three example endings.

    Attributes:
        what: name of the texts in the message: ``solutions`` or ``rollouts``.
        count: texts that ended by themselves and state no answer.
        total: all texts, including those that were cut off.
        endings: the endings of the first three texts without an answer.
    """

    what: str
    count: int = 0
    total: int = 0
    endings: list[str] = field(default_factory=list)

    def add(self, text: str, *, stated: bool) -> None:
        """Count one text.

        Args:
            text: the text.
            stated: it states an answer, was cut off before it could, or was not read in time.
        """
        self.total += 1
        if not stated:
            self.count += 1
            if len(self.endings) < _SHOWN:
                ending = " ".join(text.split())
                self.endings.append(f"…{ending[-_ENDING:]}" if len(ending) > _ENDING else ending)

    def warn(self, advice: str) -> None:
        """Print a warning with three endings if many texts state no answer.

        Many are more than 5 %.

        Args:
            advice: what to do about them, as part of the message.
        """
        if self.count > LIMIT * self.total:
            share = f"{self.count / self.total:.1%}"
            lines = "".join(f"\n    {ending}" for ending in self.endings)
            print(
                f"warning: {self.count:,} of {self.total:,} {self.what} ({share}) state no "
                f"recognisable answer; {advice}. Examples of their endings:{lines}",
                file=sys.stderr,
            )
