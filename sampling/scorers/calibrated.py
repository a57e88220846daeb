"""Apply a calibration to the values of a scorer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from sampling.scorers.base import Scorer
from sampling.scorers.wrapped import WrappedScorer
from sampling.selection.calibration import Calibration
from sampling.selection.calibration_files import calibration_of, check_by_value, count_shared, read_calibrations
from stepverify.records import Solution


class CalibratedScorer(WrappedScorer):
    """Map each value of a scorer to a probability.

    Args:
        scorer: gives the values.
        calibration: the map of its values.
        where: beginning of error messages: the file of the map, and the scorer's name.

    Raises:
        InputError: a map of scores that need all values of a solution first.
    """

    def __init__(self, scorer: Scorer, calibration: Calibration, where: str) -> None:
        check_by_value(calibration, where)
        super().__init__(scorer)
        self.calibration = calibration

    async def score(self, solutions: Sequence[Solution]) -> list[list[float]]:
        """Score solutions, and map every value."""
        return [self.calibration.map_values(values) for values in await self.scorer.score(solutions)]

    def identity(self) -> dict[str, Any]:
        """Return the scorer's identity and the maps."""
        maps = dict(zip(map(str, self.calibration.first_steps), to_builtins(self.calibration.maps), strict=True))
        return self.scorer.identity() | {"calibration": maps}


def calibrated(scorers: dict[str, Scorer], path: Path | None, problems: Iterable[str]) -> dict[str, Scorer]:
    """Apply a file of ``sampling calibrate`` to scorers; those that it has no map of stay as they are.

    It is also said of which scorers the exports hold calibrations.

    Args:
        scorers: name in the scores → scorer.
        path: the file; None for no calibration.
        problems: ids of the problems to score; it is said how many of them the maps were fitted on.

    Raises:
        InputError: no map of any scorer, one of another verifier, or one of scores that need all values.
    """
    if adopted := {name: own for name, scorer in scorers.items() if (own := scorer.adopted) is not None}:
        problems = [*problems]
        for name, own in adopted.items():
            print(f"  {name}: its export holds a calibration, with which its values are mapped")
            count_shared(own.problems, problems)
    if path is None:
        return scorers
    read, found = read_calibrations(path, scorers), dict(scorers)
    for name, scorer in scorers.items():
        if one := calibration_of(read, path, name, scorer.identity()):
            found[name] = CalibratedScorer(scorer, one, f"calibration: {path}: {name}")
        else:
            print(f"  {path} has no map of {name}: its values are taken as they are")
    count_shared(read.problems, problems)
    return found
