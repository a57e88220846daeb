"""Fit maps from a verifier's values to probabilities: temperature, Platt scaling, isotonic regression.

Training and the sampling side share them. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from msgspec import Struct

from stepverify.records import InputError

Method = Literal["temperature", "platt", "isotonic"]
METHODS: tuple[Method, ...] = get_args(Method)
BY_VALUE = ("last", "min", "max")  # aggregations that give the same before and after an ascending map
_NEAREST = 1e-12  # to 0 and 1, where logits are fitted


class Temperature(Struct, tag="temperature", tag_field="method", forbid_unknown_fields=True):
    """Divide logits by a temperature above 0 (Guo et al. 2017, section 4.2)."""

    temperature: float

    def __post_init__(self) -> None:
        if not 0 < self.temperature < np.inf:
            raise InputError(f"temperature: expected more than 0, got {self.temperature}")

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Map values in [0, 1], of any shape."""
        return sigmoid(logit(values) / self.temperature)


class Platt(Struct, tag="platt", tag_field="method", forbid_unknown_fields=True):
    """Scale logits by a gain above 0, and add a bias (Platt 1999)."""

    gain: float
    bias: float

    def __post_init__(self) -> None:
        if not (0 < self.gain < np.inf and np.isfinite(self.bias)):
            raise InputError(f"gain, bias: expected a gain above 0 and a number, got {self.gain} and {self.bias}")

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Map values in [0, 1], of any shape."""
        return sigmoid(self.gain * logit(values) + self.bias)


class Isotonic(Struct, tag="isotonic", tag_field="method", forbid_unknown_fields=True):
    """Interpolate between ascending points (Zadrozny and Elkan 2002, section 3).

    Attributes:
        values: where the points are, ascending.
        probabilities: of being correct there, ascending; constant beyond the first and the last point.
    """

    values: list[float]
    probabilities: list[float]

    def __post_init__(self) -> None:
        rising = all(sorted(these) == these for these in (self.values, self.probabilities))
        if not (rising and 0 < len(self.values) == len(self.probabilities)):
            raise InputError("values, probabilities: expected equally many ascending numbers")

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Map values in [0, 1], of any shape."""
        return np.interp(values, self.values, self.probabilities)


Map = Temperature | Platt | Isotonic


def fit_map(method: Method, values: np.ndarray, correct: np.ndarray, where: str = "calibration") -> Map:
    """Fit a map from values to probabilities of being correct; it never decreases.

    Args:
        method: kind of the map.
        values: (M,), in [0, 1].
        correct: (M,), booleans.
        where: beginning of error messages.

    Raises:
        InputError: one class alone, equal values, or a fitted gain that is not above 0.
    """
    if correct.all() or not correct.any():
        kind = "correct" if len(correct) and correct.all() else "incorrect"
        raise InputError(f"{where}: all {len(correct):,} labels are {kind}; a map needs both kinds")
    if np.ptp(values) == 0:
        raise InputError(f"{where}: all {len(values):,} values are {values[0]:g}; a map needs different ones")
    if method == "isotonic":
        return isotonic(values, correct)
    logits = logit(values.clip(_NEAREST, 1 - _NEAREST))
    gain, bias = platt(logits, correct) if method == "platt" else (_gain(logits, correct), 0.0)
    if not gain > 0:
        reason = (
            "values are too high or too low for a temperature alone; take method platt or isotonic"
            if method == "temperature"
            else "higher values are not more often correct; check the verifier and the labels, or take method "
            "isotonic, which then makes values equal"
        )
        raise InputError(f"{where}: the fitted gain of logits is {gain:.3g}, expected above 0: {reason}")
    return Platt(gain, bias) if method == "platt" else Temperature(1 / gain)


def map_by_position(
    maps: Sequence[Map], first_steps: Sequence[int], values: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """Map values by the positions of their steps.

    Args:
        maps: one for each range of positions.
        first_steps: position at which each range begins, from 1.
        values: (M,).
        places: (M,), positions from 0.
    """
    found = np.empty(len(values))
    ranges = np.searchsorted(first_steps, places + 1, side="right") - 1
    for number, one in enumerate(maps):
        found[ranges == number] = one(values[ranges == number])
    return found


def platt(logits: np.ndarray, correct: np.ndarray) -> tuple[float, float]:
    """Fit a logistic regression of the outcome on the logit.

    Targets lie inside (0, 1) (Platt 1999, section 2.2): so gain and bias are finite even if the logits separate correct
    from incorrect without error.

    Args:
        logits: (M,), finite.
        correct: (M,), booleans.

    Returns:
        Gain and bias; NaN with one class only or if all logits are equal.
    """
    if correct.all() or not correct.any() or np.ptp(logits) == 0:
        return np.nan, np.nan
    mean, std = logits.mean(), logits.std()
    features = np.stack([(logits - mean) / std, np.ones(len(logits))], axis=1)
    slope, level = logistic_regression(features, _soft(correct))
    return float(slope / std), float(level - slope * mean / std)


def _gain(logits: np.ndarray, correct: np.ndarray) -> float:
    """Fit the gain alone, with Platt's targets."""
    scale = np.abs(logits).max()
    return float(logistic_regression(logits[:, None] / scale, _soft(correct))[0] / scale)


def _soft(correct: np.ndarray) -> np.ndarray:
    positive = np.count_nonzero(correct)
    return np.where(correct, (positive + 1) / (positive + 2), 1 / (len(correct) - positive + 2))


def logistic_regression(features: np.ndarray, targets: np.ndarray, penalty: np.ndarray | float = 0.0) -> np.ndarray:
    """Maximize the likelihood of a logistic regression by Newton's method.

    Args:
        features: (M, F), of about unit size, with a column of ones for a bias.
        targets: (M,), in [0, 1]; inside it if no penalty keeps the weights finite.
        penalty: (F,), half of it times the squared weight is added to the sum of losses.

    Returns:
        (F,), the weights.
    """
    weights = np.zeros(features.shape[1])
    penalty = np.broadcast_to(penalty, weights.shape)

    def loss(at: np.ndarray) -> float:
        logits = features @ at
        return float((np.logaddexp(0, logits) - targets * logits).sum() + (penalty * at**2).sum() / 2)

    before = loss(weights)
    for _ in range(200):
        probability = sigmoid(features @ weights)
        slope = features.T @ (probability - targets) + penalty * weights
        curvature = (features.T * (probability * (1 - probability))) @ features + np.diag(penalty + 1e-12)
        if np.abs(slope).max() < 1e-9 * len(features):
            break
        step = np.linalg.solve(curvature, slope)
        while (now := loss(weights - step)) > before and np.abs(step).max() > 1e-12:
            step /= 2
        weights, before = weights - step, now
    return weights


def isotonic(values: np.ndarray, correct: np.ndarray) -> Isotonic:
    """Fit the ascending step function of least squared error, by pooling adjacent violators.

    Barlow et al. 1972. Equal values are one point, and so share a probability.
    """
    points, places = np.unique(values, return_inverse=True)
    counts, sums = np.bincount(places), np.bincount(places, weights=correct.astype(float))
    blocks: list[tuple[int, int, float, float]] = []  # first point, last point, correct, count
    for i, (total, count) in enumerate(zip(sums.tolist(), counts.tolist(), strict=True)):
        first = i
        while blocks and blocks[-1][2] * count >= total * blocks[-1][3]:
            first, _, earlier, number = blocks.pop()
            total, count = total + earlier, count + number  # noqa: PLW2901
        blocks.append((first, i, total, count))
    knots = [(float(points[at]), total / count) for a, b, total, count in blocks for at in sorted({a, b})]
    return Isotonic([value for value, _ in knots], [probability for _, probability in knots])


def logit(probability: np.ndarray) -> np.ndarray:
    """Return the logits of probabilities; 0 and 1 become -inf and inf."""
    with np.errstate(divide="ignore"):
        found: np.ndarray = np.log(probability) - np.log1p(-probability)
    return found


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits, without overflow."""
    small = np.exp(-np.abs(logits))
    found: np.ndarray = np.where(logits >= 0, 1, small) / (1 + small)
    return found
