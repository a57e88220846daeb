"""Measures of values against truths, on numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

NUM_BINS = 15


def auc(scores: np.ndarray, right: np.ndarray) -> float | None:
    """Area under the ROC curve: the chance that a right one scores above a wrong one, a tie counting half."""
    num_right, num_wrong = np.count_nonzero(right), np.count_nonzero(~right)
    if not num_right or not num_wrong:
        return None
    return float((ranks(scores)[right].sum() - num_right * (num_right + 1) / 2) / (num_right * num_wrong))


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


def auc_within(scores: np.ndarray, right: np.ndarray, groups: np.ndarray) -> float | None:
    """The mean of the areas of each group, all weighing the same; None where none has right ones and wrong ones.

    Over all solutions an area is high too where scores tell hard problems from easy ones; choosing among the solutions
    of one problem needs this one.
    """
    order = np.argsort(groups, kind="stable")
    borders = np.flatnonzero(np.diff(groups[order])) + 1
    areas = [auc(scores[rows], right[rows]) for rows in np.split(order, borders)]
    known = [area for area in areas if area is not None]
    return sum(known) / len(known) if known else None


def f1(found: np.ndarray, truth: np.ndarray) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is found and nothing is there to be found."""
    marked = np.count_nonzero(found) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(found & truth) / marked if marked else 0.0


def reliability(chance: np.ndarray, right: np.ndarray, num_bins: int = NUM_BINS) -> list[dict[str, float]]:
    """Mean value, share right and count in each of ``num_bins`` equal parts of [0, 1]; empty ones are left out."""
    places = np.clip(np.ceil(chance * num_bins).astype(int) - 1, 0, num_bins - 1)
    counts = np.bincount(places, minlength=num_bins)
    means, shares = (np.bincount(places, weights=w, minlength=num_bins) for w in (chance, right.astype(float)))
    return [
        {"value": float(means[i] / counts[i]), "right": float(shares[i] / counts[i]), "count": int(counts[i])}
        for i in np.flatnonzero(counts)
    ]


def calibration_error(bins: Sequence[Mapping[str, float]]) -> float:
    """Expected calibration error over the bins of :func:`reliability` (Guo et al. 2017, section 2)."""
    return sum(b["count"] * abs(b["value"] - b["right"]) for b in bins) / sum(b["count"] for b in bins)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, the mean of the ranks among equals: correlating them is Spearman's coefficient."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[places]


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """The correlation; None where one of them does not vary."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def mean(values: np.ndarray) -> float | None:
    """The mean; None of nothing."""
    return float(values.mean()) if len(values) else None


def aggregate_all(values: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """:func:`stepverify.aggregate.aggregate` by every rule, for many solutions at once.

    Args:
        values: (values of all solutions,), one solution after the other.
        counts: (solutions,), how many of them belong to each; at least 1.
    """
    ends = np.cumsum(counts)
    starts = ends - counts
    with np.errstate(divide="ignore"):
        logarithms = np.log(values)
    return {
        "prod": np.add.reduceat(logarithms, starts),
        "min": np.minimum.reduceat(values, starts),
        "last": values[ends - 1],
        "mean": np.add.reduceat(values, starts) / counts,
        "max": np.maximum.reduceat(values, starts),
    }
