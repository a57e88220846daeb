"""Read files of ``sampling calibrate``, and check that they are of the verifiers whose scores there are."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from sampling.runtime.provenance import scored_by
from sampling.selection.calibration import VERSION, Calibration, Calibrations, describe_shared
from stepverify.decoding import read_made
from stepverify.jsonl import read_records
from stepverify.manifest import first_difference
from stepverify.records import InputError, Solution


class _Scored(Struct):
    """Read no more of a solution than says whose it is, and which verifiers scored it."""

    id: str
    problem_id: str
    scores: dict[str, list[float]] = {}


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


def check_by_value(calibration: Calibration, where: str) -> None:
    """Check that a map applies to each value alone.

    Args:
        calibration: the map.
        where: beginning of the error message: the file, and the verifier's name.

    Raises:
        InputError: a map of scores that need all values of a solution first.
    """
    if not calibration.by_value:
        raise InputError(
            f"{where}: maps scores by {calibration.aggregation}, which need all values of a solution; give it to "
            "`sampling rank`, or calibrate with target: steps, or aggregation: last, min or max"
        )


def maps_of(path: Path, names: Collection[str], scores: Path) -> tuple[Calibrations, dict[str, Calibration], list[str]]:
    """Read the maps of verifiers whose scores a folder holds.

    Args:
        path: file of ``sampling calibrate``.
        names: the verifiers.
        scores: scored solutions, whose manifests identify the verifiers.

    Returns:
        The file, verifier → map, and a line that names the verifiers without one, if there are some.

    Raises:
        InputError: no map of any of the verifiers, or one of another.
    """
    read, identities = read_calibrations(path, names), scored_by(scores)
    maps = {name: found for name in names if (found := calibration_of(read, path, name, identities.get(name)))}
    without = ", ".join(name for name in names if name not in maps)
    return read, maps, [f"{path} has no map of {without}: values are taken as they are"] if without else []


def maps_of_values(path: Path, scores: Path) -> tuple[dict[str, Calibration], list[str]]:
    """Read the maps of the verifiers whose scores a folder holds.

    Args:
        path: file of ``sampling calibrate``.
        scores: scored solutions.

    Returns:
        Verifier → map, and warnings: verifiers without a map, and problems that the maps were fitted on.

    Raises:
        InputError: no map of any of the verifiers, one of another, or one of scores that need all values.
    """
    names, problems = set[str](), set[str]()
    for solution in read_records(scores, _Scored):
        names |= solution.scores.keys()
        problems.add(solution.problem_id)
    read, maps, said = maps_of(path, sorted(names), scores)
    for name, one in maps.items():
        check_by_value(one, f"calibration: {path}: {name}")
    return maps, [*said, *describe_shared(shared_with(read.problems, problems))]


def read_mapped(path: Path, maps: Mapping[str, Calibration]) -> Iterator[Solution]:
    """Read scored solutions, their values as the maps of the verifiers have them."""
    for solution in read_records(path, Solution):
        scores = solution.scores
        solution.scores = scores | {name: one.map_values(scores[name]) for name, one in maps.items() if name in scores}
        yield solution


def shared_with(fitted: Iterable[str], problems: Collection[str]) -> dict[str, Any]:
    """Count the problems that maps were ``fitted`` on, as in a summary."""
    shared = sorted({*problems}.intersection(fitted))
    return {"problems": len(shared), "of": len(problems), "first": shared[0] if shared else None}


def count_shared(fitted: Iterable[str], problems: Iterable[str]) -> dict[str, Any]:
    """Count the problems that maps were ``fitted`` on, as in a summary; say so if there are some."""
    found = shared_with(fitted, {*problems})
    for line in describe_shared(found):
        print(f"  WARNING: {line}")
    return found
