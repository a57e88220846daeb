"""Apply a calibration to the values of a scorer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from sampling.engines.base import Usage
from sampling.scorers.base import Objective, Scorer
from sampling.selection.calibration import Calibration
from sampling.selection.calibration_files import calibration_of, count_shared, read_calibrations
from stepverify.records import InputError, Solution


class CalibratedScorer(Scorer):
    """Map each value of a scorer to a probability.

    Args:
        scorer: gives the values.
        calibration: the map of its values.
        where: beginning of error messages: the file of the map, and the scorer's name.

    Raises:
        InputError: a map of scores that need all values of a solution first.
    """

    def __init__(self, scorer: Scorer, calibration: Calibration, where: str) -> None:
        if not calibration.by_value:
            raise InputError(
                f"{where}: maps scores by {calibration.aggregation}, which need all values of a solution; give it to "
                "`sampling rank`, or calibrate with target: steps, or aggregation: last, min or max"
            )
        self.scorer, self.calibration = scorer, calibration

    @property
    def concurrency(self) -> int:  # type: ignore[override]
        """Return the calls that keep the scorer busy."""
        return self.scorer.concurrency

    @property
    def export(self) -> str | None:  # type: ignore[override]
        """Return the scorer's export."""
        return self.scorer.export

    @property
    def objective(self) -> Objective | None:  # type: ignore[override]
        """Return the scorer's objective."""
        return self.scorer.objective

    @property
    def usage(self) -> Usage | None:  # type: ignore[override]
        """Return the tokens that the scorer has read."""
        return self.scorer.usage

    @property
    def num_parameters(self) -> int | None:  # type: ignore[override]
        """Return the number of parameters of the scorer's model."""
        return self.scorer.num_parameters

    @property
    def caches_prefixes(self) -> bool:  # type: ignore[override]
        """Tell whether the scorer caches prefixes."""
        return self.scorer.caches_prefixes

    async def score(self, solutions: Sequence[Solution]) -> list[list[float]]:
        """Score solutions, and map every value."""
        return [self.calibration.map_values(values) for values in await self.scorer.score(solutions)]

    def identity(self) -> dict[str, Any]:
        """Return the scorer's identity and the maps."""
        maps = dict(zip(map(str, self.calibration.first_steps), to_builtins(self.calibration.maps), strict=True))
        return self.scorer.identity() | {"calibration": maps}

    def token_texts(self, solution: Solution) -> list[str]:
        """Return the scorer's texts of a solution's tokens."""
        return self.scorer.token_texts(solution)

    def count_tokens(self, solution: Solution) -> int | None:
        """Count tokens as the scorer does."""
        return self.scorer.count_tokens(solution)

    def keep_prefixes(self) -> None:
        """Let the scorer keep prefixes."""
        self.scorer.keep_prefixes()

    def status(self) -> str:
        """Return what the scorer says of itself."""
        return self.scorer.status()

    async def aclose(self) -> None:
        """Close the scorer."""
        await self.scorer.aclose()


def calibrated(scorers: dict[str, Scorer], path: Path | None, problems: Iterable[str]) -> dict[str, Scorer]:
    """Apply a file of ``sampling calibrate`` to scorers; those that it has no map of stay as they are.

    Args:
        scorers: name in the scores → scorer.
        path: the file; None for no calibration.
        problems: ids of the problems to score; it is said how many of them the maps were fitted on.

    Raises:
        InputError: no map of any scorer, one of another verifier, or one of scores that need all values.
    """
    if path is None:
        return scorers
    read, found = read_calibrations(path, scorers), dict(scorers)
    for name, scorer in scorers.items():
        if one := calibration_of(read, path, name, scorer.identity()):
            found[name] = CalibratedScorer(scorer, one, f"calibration: {path}: {name}")
        else:
            print(f"  {path} has no map of {name}: its values are taken as they are")
    count_shared(read, problems)
    return found
