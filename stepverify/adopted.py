"""Hold the calibration that an export has adopted, and apply it to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import Struct

from stepverify.calibration import Map, map_by_position
from stepverify.decoding import read_made
from stepverify.digests import DECIDING
from stepverify.jsonl import fingerprint
from stepverify.records import InputError

CALIBRATION_FILE = "calibration.json"
VERSION = 1


class Adopted(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold the maps of an export's values, as ``calibration.json`` in its folder.

    Attributes:
        version: of this file.
        name: of the scores that they were fitted on.
        export: digests of the files that they were fitted for, see :func:`stepverify.digests.fingerprint_export`.
        target: what they make of a value: the probability that the step is correct, or the solution.
        aggregation: of the values of a solution when they were fitted: ``last``, ``min`` or ``max``; None for steps.
        neutral: what P(neutral) counted as in the values; None without a neutral label.
        maps: one for all steps, or one for each range of step positions.
        first_steps: position at which each range begins, from 1.
        num_labels: labels that they were fitted on.
        problems: ids of the problems that they were fitted on.
        quality: ``before`` and ``after``, each ECE and Brier score, cross-fitted.
    """

    version: int
    name: str
    export: str
    target: Literal["steps", "solutions"]
    aggregation: str | None
    neutral: str | None
    maps: list[Map]
    first_steps: list[int]
    num_labels: int
    problems: list[str]
    quality: dict[str, list[float]]

    def identity(self) -> dict[str, Any]:
        """Return what decides the mapped values, for manifests: position at which each map begins → map."""
        return dict(zip(map(str, self.first_steps), msgspec.to_builtins(self.maps), strict=True))

    def map_values(self, values: Sequence[float]) -> list[float]:
        """Map the values along a solution, or along a prefix of one.

        They are mapped with the six decimals that scores have: those that the maps were fitted on.
        """
        if not values:
            return []
        written = np.array([round(value, 6) for value in values])
        return map_by_position(self.maps, self.first_steps, written, np.arange(len(written))).tolist()


def load_adopted(folder: str | Path) -> Adopted | None:
    """Load the calibration of an export; None without one.

    Raises:
        InputError: the file is broken, or of other files than those of the export.
    """
    path = Path(folder) / CALIBRATION_FILE
    if not path.is_file():
        return None
    found = read_made(Adopted, path, "an export's calibration", version=VERSION, key="export", maker="stepverify adopt")
    # The weights are too large to be read once more; a training that changed them wrote a new folder.
    small = [fingerprint(file)[:16] for name in DECIDING if (file := Path(folder) / name).is_file()]
    if found.export.split()[-len(small) :] != small:
        raise InputError(f"{path}: is of another export than this one; adopt a calibration again, or remove the file")
    return found


def counts_neutral_as(facts: Mapping[str, Any], neutral: str | None) -> str | None:
    """Return what P(neutral) counts as in values; None for an export that does not say it."""
    return neutral or facts.get("neutral")


def check_neutral(adopted: Adopted, facts: Mapping[str, Any], neutral: str | None, path: str) -> None:
    """Refuse values that count P(neutral) otherwise than those mapped.

    Raises:
        InputError: naming both.
    """
    if (now := counts_neutral_as(facts, neutral)) != adopted.neutral:
        raise InputError(
            f"{path}: neutral: {now}: its calibration was fitted on values with neutral: {adopted.neutral}; set raw: "
            "true, or adopt another calibration"
        )
