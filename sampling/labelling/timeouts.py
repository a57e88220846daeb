"""Warn if reading or comparing many answers exceeds its time limit.

Otherwise a limit that is too low would silently become incorrect labels.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stepverify.records import Rollout, Solution

LIMIT = 0.01
"""Warn above this share of compared answers."""
_SHOWN = 80


@dataclass
class Timeouts:
    """Count read and compared answers and those that timed out, and keep an example.

    Counted from records, so that those of earlier runs of a stage are included.

    Attributes:
        what: name of the answers' texts in the message: ``solutions``, ``rollouts`` or ``pairs``.
        time_limit: of one text or comparison, in seconds of CPU time.
        count: answers that timed out.
        total: all answers that were compared, and texts that were not read in time.
        example: the first that timed out.
    """

    what: str
    time_limit: float
    count: int = 0
    total: int = 0
    example: str = ""

    def add(self, place: str, predicted: str | None, *, timed_out: bool) -> None:
        """Count one answer.

        Args:
            place: id of its text.
            predicted: the answer; None was not compared.
            timed_out: whether the comparison took too long, or without an answer, reading the text.
        """
        self.total += predicted is not None or timed_out
        if timed_out:
            self.count += 1
            answer = "its text was not read" if predicted is None else " ".join(predicted.split())
            self.example = self.example or f"{place}: {answer[:_SHOWN]}{'…' * (len(answer) > _SHOWN)}"

    def warn(self, effect: str) -> None:
        """Print a warning with an example if more than 1 % timed out.

        Args:
            effect: what such an answer counts as.
        """
        if self.count > LIMIT * self.total:
            print(
                f"warning: {self.count:,} of {self.total:,} {self.what} with an answer ({self.count / self.total:.1%}) "
                f"were not graded within {self.time_limit:g} s of CPU time; {effect}; a larger `time_limit` grades "
                f"more. For example {self.example}",
                file=sys.stderr,
            )


def count_solutions(solutions: Iterable[Solution], found: Timeouts) -> Iterator[Solution]:
    """Pass solutions on, and count those whose grading timed out."""
    for s in solutions:
        found.add(s.id, s.predicted, timed_out=s.timed_out)
        yield s


def count_rollouts(rollouts: Iterable[Rollout], found: Timeouts) -> Iterator[Rollout]:
    """Pass rollouts on, and count the completions whose grading timed out."""
    for rollout in rollouts:
        for i, answer in enumerate(rollout.answers):
            found.add(rollout.id, answer, timed_out=i in rollout.timed_out)
        yield rollout
