"""Hold what ``sampling calibrate`` has fitted, and apply it to a verifier's values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from msgspec import Struct, field

from stepverify.aggregate import Aggregation, aggregate, vote_weight
from stepverify.calibration import BY_VALUE, Map, Method, map_by_position
from stepverify.records import InputError
from stepverify.statistics import aggregate_all

VERSION = 1
LEARNED: Literal["learned"] = "learned"
How = Aggregation | Literal["learned"]
Target = Literal["steps", "solutions"]
FEATURES = ("min", "mean", "last", "log_product", "num_steps")
_SMALLEST = 1e-12  # factor of a product


class Quality(Struct, kw_only=True, forbid_unknown_fields=True):
    """Measure probabilities that solutions are correct, and the rules that use them.

    Attributes:
        ece: expected calibration error over 15 bins.
        brier: Brier score.
        best_of_n: accuracy of the best score.
        weighted_vote: accuracy of the weighted majority vote.
    """

    ece: float
    brier: float
    best_of_n: float
    weighted_vote: float


class Measured(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold what one aggregation is worth, each problem measured with what the others have fitted.

    Differences are of the weighted vote's accuracy: value, and ends of the 95 % interval over problems.

    Attributes:
        before: of the values as they are; None of the learned aggregation.
        gain: after minus before; empty for the learned one.
        over_majority: after minus the majority vote.
        learned_over: the learned aggregation minus this one after calibration; empty without step values.
    """

    before: Quality | None
    after: Quality
    gain: list[float] = []
    over_majority: list[float]
    learned_over: list[float] = []


class Calibration(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold the map of one verifier.

    Attributes:
        identity: the verifier, as the manifest of its scores has it; None of scores without one.
        target: what the map makes of a value: the probability that the step is correct, or the solution.
        maps: one for all steps, or one for each range of step positions.
        first_steps: position at which each range begins, from 1.
        aggregation: of the values that the map takes, where the target is solutions.
        learned: weights of :data:`FEATURES` and ``bias``, the logit of a correct solution; None without step values.
        num_labels: labels that the maps were fitted on.
        step_quality: ECE and Brier score of step values, before and after; empty where the target is solutions.
        measured: aggregation → what it is worth.
        unfitted: aggregation → why it has no map, of those that were only compared.
    """

    identity: dict[str, Any] | None
    target: Target
    maps: list[Map]
    first_steps: list[int] = field(default_factory=lambda: [1])
    aggregation: Aggregation | None = None
    learned: dict[str, float] | None = None
    num_labels: int = 0
    step_quality: dict[str, list[float]] = {}
    measured: dict[str, Measured] = {}
    unfitted: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not self.maps or len(self.maps) != len(self.first_steps) or self.first_steps != sorted({*self.first_steps}):
            raise InputError("maps, first_steps: expected a map for each of some ascending positions")
        if (self.target == "solutions") != (self.aggregation is not None) or self.first_steps[0] != 1:
            raise InputError(
                "target: a map of solutions names its aggregation, maps of steps none, and begin at step 1"
            )
        if self.learned is not None and self.learned.keys() != {*FEATURES, "bias"}:
            raise InputError(f"learned: expected weights of {', '.join(FEATURES)} and bias")

    @property
    def by_value(self) -> bool:
        """Tell whether the map applies to each value alone, so that no aggregation comes first."""
        return self.target == "steps" or self.aggregation in BY_VALUE

    def map_values(self, values: Sequence[float]) -> list[float]:
        """Map each value along a solution, or along a prefix of one."""
        if not values:
            return []
        return map_by_position(self.maps, self.first_steps, np.array(values), np.arange(len(values))).tolist()

    def scores(self, values: Sequence[Sequence[float]], how: How) -> list[float]:
        """Return a score of each solution that orders them; -inf without values.

        The map of the aggregated score never decreases, so that the score itself orders as it does, and has fewer ties.
        """
        if how != LEARNED:
            return [aggregate(one, how) for one in values]
        return self._of_known(values, self.learned_logits)

    def weights(self, values: Sequence[Sequence[float]], how: How) -> list[float]:
        """Return the probability that each solution is correct, its weight in a vote; 0 without values."""
        if how == LEARNED:
            return [1 / (1 + math.exp(-logit)) if logit > -700 else 0.0 for logit in self.scores(values, how)]
        plain = [vote_weight(one, how) for one in values]
        if self.target == "steps" or how != self.aggregation:
            return plain
        mapped = self.maps[0](np.array(plain))
        return [float(weight) if one else 0.0 for one, weight in zip(values, mapped, strict=True)]

    def learned_logits(self, features: np.ndarray) -> np.ndarray:
        """Return the logits of the learned aggregation, shape (M,), of features (M, 5)."""
        assert self.learned is not None
        weights = np.array([self.learned[name] for name in FEATURES])
        logits: np.ndarray = features @ weights + self.learned["bias"]
        return logits

    def _of_known(self, values: Sequence[Sequence[float]], of: Any) -> list[float]:
        known = [i for i, one in enumerate(values) if one]
        found = np.full(len(values), -math.inf)
        if known:
            flat = np.concatenate([np.asarray(values[i], float) for i in known])
            found[known] = of(summaries(flat, np.array([len(values[i]) for i in known])))
        return found.tolist()


class Calibrations(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold a file of ``sampling calibrate``.

    Attributes:
        method: of all maps.
        num_samples: N of the measured accuracies; 0 where solutions are not graded and none was measured.
        majority: accuracy of the majority vote of N samples, on the problems that have as many; None if not measured.
        num_folds: folds of the cross-fitting.
        seed: of the folds.
        problems: ids of the problems that the maps were fitted on.
        verifiers: name in the scores → map.
        limit: number of problems of a trial (``--limit``); null for one of all problems.
    """

    version: int
    method: Method
    num_samples: int
    majority: float | None
    num_folds: int
    seed: int
    problems: list[str]
    verifiers: dict[str, Calibration]
    limit: int | None = None


def describe_shared(found: Mapping[str, Any]) -> list[str]:
    """Describe the problems that a calibration was fitted on, in one line if there are some."""
    if not found.get("problems"):
        return []
    return [
        f"the calibration was fitted on {found['problems']:,} of the {found['of']:,} problems, {found['first']} for "
        "one; calibrated values look better on them than on new ones"
    ]


def summaries(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Summarize the step values of solutions for the learned aggregation.

    Args:
        values: (values of all solutions,), one solution after the other.
        counts: (M,), number of values of each; at least 1.

    Returns:
        (M, 5), in the order of :data:`FEATURES`; a factor of 0 counts as 1e-12 in the logarithm of the product.
    """
    found = aggregate_all(values.clip(_SMALLEST), counts)
    return np.stack([found["min"], found["mean"], found["last"], found["prod"], counts], axis=1)
