"""How well values order steps: the area under the ROC curve with intervals over problems, and what it is above."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np

from sampling.report.collect import Collected, Steps
from sampling.report.curves import interval, resamples


def step_order_statistics(collected: Collected, num_bootstrap: int, seed: int) -> dict[str, Any]:
    """Verifier → the interval of the AUC of its values of steps, and the AUC's paired differences.

    ``interval`` is a {low, high}; ``above`` holds a {difference, low, high} for ``position`` and ``length`` (earlier,
    or shorter, steps first: no model) and for every verifier named before it that judged the same steps. Intervals (95
    %) are over resamples of the problems, since the steps of a problem, and of its solutions, go together. A difference
    is taken within each resample. Both are None, and empty, where all steps are right or all are wrong.

    Args:
        collected: verifiers that do not judge steps are left out.
        num_bootstrap: resamples of the problems.
        seed: of the resamples.
    """
    judged = {name: one.steps for name, one in collected.verifiers.items() if one.of_steps}
    orders = {name: {"": _floats(s.values), "position": -_floats(s.places), "length": -_floats(s.lengths)}
              for name, s in judged.items()}  # fmt: skip
    sampled: dict[str, dict[str, list[np.ndarray]]] = {n: {key: [] for key in order} for n, order in orders.items()}
    num_problems, widest = collected.num_problems, max((len(s.values) for s in judged.values()), default=0)
    itself = np.ones((1, num_problems), int)
    for drawn in chain([itself], resamples(num_problems, num_bootstrap, seed, 4 * widest)) if judged else ():
        for name, steps in judged.items():
            weights = drawn[:, _floats(steps.problems).astype(int)]
            for key, order in orders[name].items():
                sampled[name][key].append(weighted_auc(order, _floats(steps.right) == 1, weights))
    areas = {name: {key: np.concatenate(parts) for key, parts in of.items()} for name, of in sampled.items()}
    found: dict[str, Any] = {}
    for name, area in areas.items():
        known = not np.isnan(area[""][0])
        others = {other: areas[other][""] for other in found if _same_steps(judged[other], judged[name])}
        against = {key: area[key] for key in ("position", "length")} | others
        found[name] = {
            "interval": _interval(area[""][1:]) if known else None,
            "above": {key: _difference(area[""] - other) for key, other in against.items()} if known else {},
        }
    return found


def weighted_auc(scores: np.ndarray, right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Areas under the ROC curve when every score counts several times, a tie counting half.

    Args:
        scores: (M,), higher for right ones.
        right: (M,), booleans.
        weights: (B, M), how often each counts.

    Returns:
        (B,); NaN where there are no right ones or no wrong ones.
    """
    order = np.argsort(scores, kind="stable")
    ordered, truth = scores[order], right[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    weights = weights[:, order]
    rights, wrongs = (np.add.reduceat(weights * of, starts, axis=1) for of in (truth, ~truth))
    below = np.cumsum(wrongs, axis=1) - wrongs / 2
    pairs = rights.sum(1) * wrongs.sum(1)
    return np.divide((rights * below).sum(1), pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def _floats(values: Any) -> np.ndarray:
    return np.frombuffer(values)


def _same_steps(a: Steps, b: Steps) -> bool:
    return all(getattr(a, key) == getattr(b, key) for key in ("problems", "places", "lengths", "right"))


def _interval(areas: np.ndarray) -> dict[str, float]:
    low, high = interval(areas[~np.isnan(areas)])  # a resample may lack one kind of steps
    return {"low": float(low), "high": float(high)}


def _difference(areas: np.ndarray) -> dict[str, float]:
    return {"difference": float(areas[0])} | _interval(areas[1:])
