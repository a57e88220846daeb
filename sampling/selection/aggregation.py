"""Choose how the values along a solution become its score.

The aggregation is configured, chosen on validation problems, or the default.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from sampling.selection.calibration import LEARNED, Calibration, How
from sampling.selection.candidates import Sample
from sampling.selection.estimators import best_of_n
from sampling.selection.pool import Pool, drop_smaller, has_many, largest_size, read_pool
from stepverify.aggregate import AGGREGATIONS, Aggregation, aggregate
from stepverify.records import InputError

CANDIDATES: tuple[Aggregation, ...] = ("prod", "min", "last", "mean")


class Choice(TypedDict):
    """Hold the aggregation of a verifier, and how it was chosen."""

    how: How
    chosen_on: Literal["configured", "calibration", "validation", "default"]


def choose_aggregations(
    pool: Pool,
    configured: Mapping[str, How],
    validation: Path | None,
    largest: int,
    everyone: set[str],
    without_final_step: Collection[str] = (),
    calibrations: Mapping[str, Calibration] | None = None,
    identities: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[dict[str, Choice], dict[str, Any] | None]:
    """Choose the aggregation of each verifier.

    Args:
        pool: the samples that are ranked.
        configured: verifier → requested aggregation.
        validation: solutions of other problems, on which best-of-N chooses the aggregation of a verifier with several
            values per solution.
        largest: N for validation, or fewer if those problems have fewer samples.
        everyone: all problems of the input.
        without_final_step: verifiers whose value of the final answer's step is left out, as in ``pool``.
        calibrations: verifier → its map, applied to ``pool`` already where it is one of steps.
        identities: verifier → its identity, which may say an aggregation.

    Returns:
        verifier → choice, and the table of validation; None without one.

    Raises:
        InputError: an unknown verifier or aggregation, or validation problems that are in the input.
    """
    calibrations = calibrations or {}
    samples = [sample for group in pool.values() for sample in group]
    names = sorted(samples[0].scores)
    for name, how in configured.items():
        if name not in names or how not in (*AGGREGATIONS, LEARNED):
            raise InputError(f"aggregation.{name}: {how}: expected one of {names}, and one of {AGGREGATIONS}")
        _check_calibrated(name, how, calibrations.get(name))
    for name in without_final_step:
        if name not in names:
            raise InputError(f"without_final_step: {name}: expected one of {names}")
    other = read_pool(validation, without_final_step) if validation else {}
    map_steps(other, calibrations, configured)
    if shared := other.keys() & everyone:
        raise InputError(f"validation: {len(shared)} problems are also in the input, for example {min(shared)}")
    size = min([largest, largest_size([*map(len, other.values())])]) if other else largest
    few = drop_smaller(other, size)
    chosen: dict[str, Choice] = {}
    table: dict[str, dict[How, float]] = {}
    for name in names:
        many = has_many(pool, name)
        if name in configured:
            chosen[name] = {"how": configured[name], "chosen_on": "configured"}
        elif name in calibrations and (fixed := calibrations[name].aggregation):
            chosen[name] = {"how": fixed, "chosen_on": "calibration"}
        elif other and many:
            if any(name not in group[0].scores for group in other.values()):
                raise InputError(f"validation: {validation} has no score by '{name}'")
            table[name] = {how: _mean_best_of_n(other, name, how, size) for how in CANDIDATES}
            chosen[name] = {"how": max(CANDIDATES, key=table[name].__getitem__), "chosen_on": "validation"}
        else:
            how = default_aggregation(samples, name, (identities or {}).get(name))
            chosen[name] = {"how": how, "chosen_on": "default"}
    named = {"fewer_samples": few} if few else {}
    return chosen, {"num_problems": len(other), "n": size, "best_of_n": table} | named if other else None


def default_aggregation(samples: Sequence[Sample], name: str, identity: Mapping[str, Any] | None) -> Aggregation:
    """Return how a verifier's values become a score, if nobody says so.

    As its scorer has said, which is in its identity; otherwise the product of values of steps, or else the last one.
    """
    if identity is not None and identity.get("aggregation") in AGGREGATIONS:
        found: Aggregation = identity["aggregation"]
        return found
    # An outcome verifier may give one value per token; its score is still the last one.
    # A solution without values does not tell whether values are of steps or tokens.
    many = any(sample.num_values(name) > 1 for sample in samples)
    return "prod" if many and all(s.num_values(name) in (0, s.num_steps) for s in samples) else "last"


def map_steps(pool: Pool, calibrations: Mapping[str, Calibration], configured: Mapping[str, How]) -> None:
    """Map the values of steps in a pool; a learned aggregation takes them as they are."""
    mapped = {n: one for n, one in calibrations.items() if one.target == "steps" and configured.get(n) != LEARNED}
    for sample in (sample for group in pool.values() for sample in group) if mapped else ():
        sample.scores = {
            name: mapped[name].map_values(values) if name in mapped else values
            for name, values in sample.scores.items()
        }


def _check_calibrated(name: str, how: How, calibration: Calibration | None) -> None:
    if how == LEARNED:
        if calibration is None or calibration.learned is None:
            raise InputError(
                f"aggregation.{name}: learned: expected a calibration that learned one; `sampling calibrate` does, for "
                "verifiers with several values per solution"
            )
    elif calibration is not None and calibration.aggregation not in (None, how):
        raise InputError(
            f"aggregation.{name}: {how}: the calibration maps scores by {calibration.aggregation}; give none, "
            f"or calibrate with aggregation.{name}: {how}"
        )


def _mean_best_of_n(pool: Pool, name: str, how: Aggregation, size: int) -> float:
    return math.fsum(
        best_of_n([aggregate(s.scores[name], how) for s in samples], [s.correct for s in samples], [size])[0]
        for samples in pool.values()
    ) / len(pool)  # fmt: skip
