"""Compute statistics of verifiers' values: AUROC, F1, calibration, bootstrap intervals.

Training and reports share this implementation. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

NUM_BINS = 15
_CHUNK = 1 << 24  # weights of resampled problems held at a time


@dataclass(frozen=True, slots=True)
class Bin:
    """Hold one bin of a reliability diagram: mean value, share correct, count."""

    value: float
    correct: float
    count: int


def auroc(scores: np.ndarray, correct: np.ndarray) -> float | None:
    """Compute the AUROC.

    It is the probability that a correct item scores above an incorrect one; ties count 1/2.

    Args:
        scores: (M,).
        correct: (M,), booleans.

    Returns:
        A number in [0, 1]; None with one class only.
    """
    above, below = scores[correct], np.sort(scores[~correct])
    if not len(above) or not len(below):
        return None
    twice = below.searchsorted(above, "left").sum() + below.searchsorted(above, "right").sum()
    return float(twice / 2 / (len(above) * len(below)))


def resampled_auroc(scores: np.ndarray, correct: np.ndarray, groups: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Compute the AUROC of several bootstrap resamples of groups; ties count 1/2.

    Args:
        scores: (M,), higher for correct items.
        correct: (M,), booleans.
        groups: (M,), group of each item, from 0.
        counts: (B, groups), how often each group was resampled, whole numbers.

    Returns:
        (B,); NaN for resamples with one class only.
    """
    _, places = np.unique(scores, return_inverse=True)
    width = counts.shape[1]
    # Items of equal value in a group are merged with a weight: step positions and lengths have few distinct values.
    (above, of_correct, times), (below, of_incorrect, others) = (
        (keys // width, keys % width, number)
        for keys, number in (np.unique((places * width + groups)[of], return_counts=True) for of in (correct, ~correct))
    )
    sums = np.zeros((len(counts), len(below) + 1), dtype=int)
    np.cumsum(np.take(counts, of_incorrect, axis=1) * others, axis=1, out=sums[:, 1:])
    weights = np.take(counts, of_correct, axis=1) * times
    pairs = weights.sum(1) * sums[:, -1]
    twice = np.zeros(len(counts), dtype=int)
    for side in ("left", "right"):
        twice += np.einsum("bm,bm->b", weights, np.take(sums, below.searchsorted(above, side), axis=1))
    return np.divide(twice / 2, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)


def auroc_per_problem(scores: np.ndarray, correct: np.ndarray, groups: np.ndarray) -> float | None:
    """Compute the mean AUROC of the groups, each with equal weight.

    The AUROC over all solutions is also high if scores merely separate hard problems from easy ones; selecting among
    the solutions of one problem needs this one. None if no group has both classes.
    """
    order = np.argsort(groups, kind="stable")
    borders = np.flatnonzero(np.diff(groups[order])) + 1
    areas = [auroc(scores[rows], correct[rows]) for rows in np.split(order, borders)]
    known = [area for area in areas if area is not None]
    return sum(known) / len(known) if known else None


def f1(found: np.ndarray, truth: np.ndarray) -> float:
    """Compute the harmonic mean of precision and recall; 0 without any positives."""
    marked = np.count_nonzero(found) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(found & truth) / marked if marked else 0.0


def reliability(probability: np.ndarray, correct: np.ndarray, num_bins: int = NUM_BINS) -> list[Bin]:
    """Compute mean value, share correct and count per bin.

    The bins divide [0, 1] equally.

    Empty bins are left out.
    """
    places = np.clip(np.ceil(probability * num_bins).astype(int) - 1, 0, num_bins - 1)
    counts = np.bincount(places, minlength=num_bins)
    means, shares = (np.bincount(places, weights=w, minlength=num_bins) for w in (probability, correct.astype(float)))
    return [
        Bin(float(means[i] / counts[i]), float(shares[i] / counts[i]), int(counts[i])) for i in np.flatnonzero(counts)
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Compute the ECE over the bins of :func:`reliability`.

    Source: Guo et al. 2017, section 2.
    """
    return sum(b.count * abs(b.value - b.correct) for b in bins) / sum(b.count for b in bins)


def brier(probabilities: np.ndarray, correct: np.ndarray) -> float:
    """Compute the Brier score: the mean squared error of probabilities (Brier 1950)."""
    return float(((probabilities - correct) ** 2).mean())


def equal_runs(ordered: np.ndarray) -> np.ndarray:
    """Find where each run of equal values starts in a non-empty array."""
    return np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank values from 1; ties share the mean of their ranks.

    The correlation of ranks is Spearman's coefficient.
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[places]


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """Compute Pearson's correlation; None if one side is constant."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def mean(values: np.ndarray) -> float | None:
    """Compute the mean; None of an empty array."""
    return float(values.mean()) if len(values) else None


def aggregate_all(values: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Aggregate the step scores of many solutions by every rule.

    The vectorized form of :func:`stepverify.aggregate.aggregate`.

    Args:
        values: (values of all solutions,), one solution after the other.
        counts: (solutions,), number of values of each solution; at least 1.
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


def bootstrap_means(values: np.ndarray, num_bootstrap: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """Compute means over problems (or solutions) sampled with replacement.

    Shapes: (problems, columns) → (num_bootstrap, columns). All columns share the resamples.
    """
    total = len(values)
    return np.concatenate([counts @ values / total for counts in resamples(total, num_bootstrap, seed)])


def means_and_bootstrap(values: np.ndarray, num_bootstrap: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """Compute the means of the sample itself, then those of resamples.

    Shapes: (problems, columns) → (1 + num_bootstrap, columns), rows as :func:`low_high` takes them.
    """
    return np.vstack([values.mean(axis=0), bootstrap_means(values, num_bootstrap, seed)])


def resamples(total: int, num: int, seed: int | tuple[int, ...], width: int = 0) -> Iterator[np.ndarray]:
    """Yield how often each of ``total`` items is sampled with replacement.

    Args:
        total: problems, or solutions.
        num: resamples.
        seed: seed of the resamples.
        width: numbers that a row needs where it is used, if more than ``total``; the arrays are sized to fit memory.

    Yields:
        Arrays of shape (some, total), ``num`` rows in all.
    """
    rng, step = np.random.default_rng(seed), max(1, _CHUNK // max(total, width))
    for start in range(0, num, step):
        rows = min(step, num - start)
        sampled = rng.integers(total, size=(rows, total)) + total * np.arange(rows)[:, None]
        yield np.bincount(sampled.ravel(), minlength=rows * total).reshape(rows, total)


def interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the 2.5th and 97.5th percentile over the first axis."""
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return low, high


def low_high(values: np.ndarray) -> tuple[float, float]:
    """Compute the 95 % bootstrap interval.

    The first value is that of the sample itself, the others are of resamples.

    NaN resamples, which lack one class, are left out. If all are NaN, the interval is the sample's value alone.
    """
    resampled = values[1:][~np.isnan(values[1:])]
    low, high = interval(resampled if len(resampled) else values[:1])
    return float(low), float(high)


def spread(values: np.ndarray) -> dict[str, float]:
    """Compute the 95 % bootstrap interval and the bootstrap standard error.

    The standard error is the standard deviation of the resamples (Efron and Tibshirani 1993, section 6.2); 0 of fewer
    than two.

    Args:
        values: (1 + resamples,), as :func:`low_high` takes them.

    Returns:
        ``low``, ``high`` and ``standard_error``.
    """
    low, high = low_high(values)
    resampled = values[1:][~np.isnan(values[1:])]
    return {"low": low, "high": high, "standard_error": float(resampled.std(ddof=1)) if len(resampled) > 1 else 0.0}
