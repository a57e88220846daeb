"""What the label stage knows of those who label steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampling.runtime.progress import Progress
from stepverify.answers import Grader
from stepverify.records import Solution


@dataclass(frozen=True)
class Stage:
    """What a labeller works with.

    Attributes:
        input: the folder of solutions; None where they come from a reader.
        output: the stage's folder; a labeller keeps what it has to remember in a folder of its own in there.
        grader: compares answers.
        progress: of the stage, to count tokens.
    """

    input: Path | None
    output: Path
    grader: Grader
    progress: Progress


class StepLabeller(ABC):
    """Knows how to label the steps of solutions."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the labels, for the manifest."""

    @abstractmethod
    def label(self, groups: Iterable[list[Solution]], stage: Stage) -> Iterator[list[Solution]]:
        """Set ``step_labels`` of graded solutions, one problem a group; yield each group when it is done."""

    def summary(self) -> dict[str, Any]:
        """Counts for the stage's summary, after the last group."""
        return {}
