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
    areas: dict[str, np.ndarray] = {}
    found: dict[str, Any] = {}
    for name, steps in judged.items():
        against = {other: area for other, area in areas.items() if _same_steps(judged[other], steps)}
        areas[name], *alone = _areas(steps, collected.num_problems, num_bootstrap, seed)
        against = dict(zip(("position", "length"), alone, strict=True)) | against
        known = not np.isnan(areas[name][0])
        found[name] = {
            "interval": _interval(areas[name]) if known else None,
            "above": {key: _difference(areas[name] - area) for key, area in against.items()} if known else {},
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


def _areas(steps: Steps, num_problems: int, num_bootstrap: int, seed: int) -> np.ndarray:
    """(3, 1 + num_bootstrap): AUC of values, places and lengths; of the sample itself, then of its resamples."""
    values, right, places, lengths, problems = map(
        np.frombuffer, (steps.values, steps.right, steps.places, steps.lengths, steps.problems)
    )
    itself = np.ones((1, num_problems), int)
    return np.hstack([
        [weighted_auc(order, right == 1, drawn[:, problems.astype(int)]) for order in (values, -places, -lengths)]
        for drawn in chain([itself], resamples(num_problems, num_bootstrap, seed, 4 * len(values)))
    ])  # fmt: skip


def _same_steps(a: Steps, b: Steps) -> bool:
    return all(getattr(a, key) == getattr(b, key) for key in ("problems", "places", "lengths", "right"))


def _interval(areas: np.ndarray) -> dict[str, float]:
    resampled = areas[1:][~np.isnan(areas[1:])]  # a resample may lack one kind of steps, and all of them may
    low, high = interval(resampled if len(resampled) else areas[:1])
    return {"low": float(low), "high": float(high)}


def _difference(areas: np.ndarray) -> dict[str, float]:
    return {"difference": float(areas[0])} | _interval(areas)
