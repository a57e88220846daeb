"""How well values order steps: the area under the ROC curve with intervals over problems, and what it is above."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np

from sampling.report.collect import Collected, Steps
from sampling.report.curves import low_high, resamples
from stepverify.statistics import weighted_auc


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
            "interval": low_high(areas[name]) if known else None,
            "above": {key: _difference(areas[name] - area) for key, area in against.items()} if known else {},
        }
    return found


def _areas(steps: Steps, num_problems: int, num_bootstrap: int, seed: int) -> np.ndarray:
    """(3, 1 + num_bootstrap): AUC of values, places and lengths; of the sample itself, then of its resamples."""
    values, right, places, lengths, problems = map(
        np.frombuffer, (steps.values, steps.right, steps.places, steps.lengths, steps.problems)
    )
    right, problems, pieces = right == 1, problems.astype(int), []
    itself = np.ones((1, num_problems), int)
    for drawn in chain([itself], resamples(num_problems, num_bootstrap, seed, 4 * len(values))):
        weights = drawn[:, problems]
        pieces.append([weighted_auc(order, right, weights) for order in (values, -places, -lengths)])
    return np.hstack(pieces)


def _same_steps(a: Steps, b: Steps) -> bool:
    return all(getattr(a, key) == getattr(b, key) for key in ("problems", "places", "lengths", "right"))


def _difference(areas: np.ndarray) -> dict[str, float]:
    return {"difference": float(areas[0])} | low_high(areas)
