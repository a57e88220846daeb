"""Read files of ``sampling calibrate``, and check that they are of the verifiers whose scores there are."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from sampling.selection.calibration import VERSION, Calibration, Calibrations, describe_shared
from stepverify.decoding import read_made
from stepverify.manifest import first_difference
from stepverify.records import InputError


def read_calibrations(path: Path, names: Collection[str] | None = None) -> Calibrations:
    """Read a file of ``sampling calibrate``.

    Args:
        path: the file.
        names: verifiers whose scores there are; None for no matter which.

    Raises:
        InputError: not such a file, of another version, or of none of the verifiers ``names``.
    """
    found = read_made(Calibrations, path, "a calibration", version=VERSION, key="verifiers", maker="sampling calibrate")
    if names is not None and not found.verifiers.keys() & set(names):
        known = ", ".join(found.verifiers) or "none"
        raise InputError(f"calibration: {path}: is of {known}, the scores of {', '.join(sorted(names)) or 'none'}")
    return found


def calibration_of(read: Calibrations, path: Path, name: str, identity: Mapping[str, Any] | None) -> Calibration | None:
    """Return a verifier's calibration, None without one; check that it is that verifier.

    Raises:
        InputError: the scores are another verifier's.
    """
    found = read.verifiers.get(name)
    if found is None:
        return None
    if identity is None or found.identity is None:
        print(f"  {name}: {path} is applied by name: no manifest says which verifier gave its scores")
    elif difference := first_difference(found.identity, json.loads(json.dumps(identity))):
        raise InputError(
            f"calibration: {path}: was fitted for another verifier '{name}', with {difference}; "
            "run `sampling calibrate` on scores of this one"
        )
    return found


def count_shared(fitted: Iterable[str], problems: Iterable[str]) -> dict[str, Any]:
    """Count the problems that maps were ``fitted`` on, as in a summary; say so if there are some."""
    problems = {*problems}
    shared = sorted(problems.intersection(fitted))
    found = {"problems": len(shared), "of": len(problems), "first": shared[0] if shared else None}
    for line in describe_shared(found):
        print(f"  WARNING: {line}")
    return found
