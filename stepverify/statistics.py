"""Statistics of verifiers' values, on numpy arrays: one implementation for training and reports. Needs numpy only.

Areas under the ROC curve, F1, calibration, correlations, and bootstrap intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

NUM_BINS = 15
_CHUNK = 1 << 24  # weights of resampled problems held at a time


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability diagram: mean value, share of correct ones, and how many there are."""

    value: float
    correct: float
    count: int


def auroc(scores: np.ndarray, correct: np.ndarray) -> float | None:
    """Compute the AUROC: the probability that a correct one scores above an incorrect one, a tie counting half.

    Args:
        scores: (M,).
        correct: (M,), booleans.

    Returns:
        None where there is one kind alone.
    """
    above, below = scores[correct], np.sort(scores[~correct])
    if not len(above) or not len(below):
        return None
    twice = below.searchsorted(above, "left").sum() + below.searchsorted(above, "right").sum()
    return float(twice / 2 / (len(above) * len(below)))


def resampled_auroc(scores: np.ndarray, correct: np.ndarray, groups: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Compute the AUROC of several resamples of groups, a tie counting half.

    Args:
        scores: (M,), higher for correct ones.
        correct: (M,), booleans.
        groups: (M,), the group of each, from 0.
        counts: (B, groups), how often each group counts, whole numbers.

    Returns:
        (B,); NaN where there are no correct ones or no incorrect ones.
    """
    _, places = np.unique(scores, return_inverse=True)
    width = counts.shape[1]
    # Ones of equal value in a group are one with a weight: places and lengths have few values.
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
    """The mean of the areas of each group, all weighing the same; None where none has correct ones and incorrect ones.

    Over all solutions an area is high too where scores tell hard problems from easy ones; choosing among the solutions
    of one problem needs this one.
    """
    order = np.argsort(groups, kind="stable")
    borders = np.flatnonzero(np.diff(groups[order])) + 1
    areas = [auroc(scores[rows], correct[rows]) for rows in np.split(order, borders)]
    known = [area for area in areas if area is not None]
    return sum(known) / len(known) if known else None


def f1(found: np.ndarray, truth: np.ndarray) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is found and nothing is there to be found."""
    marked = np.count_nonzero(found) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(found & truth) / marked if marked else 0.0


def reliability(probability: np.ndarray, correct: np.ndarray, num_bins: int = NUM_BINS) -> list[Bin]:
    """Mean value, share correct and count in each of ``num_bins`` equal parts of [0, 1]; empty ones are left out."""
    places = np.clip(np.ceil(probability * num_bins).astype(int) - 1, 0, num_bins - 1)
    counts = np.bincount(places, minlength=num_bins)
    means, shares = (np.bincount(places, weights=w, minlength=num_bins) for w in (probability, correct.astype(float)))
    return [
        Bin(float(means[i] / counts[i]), float(shares[i] / counts[i]), int(counts[i])) for i in np.flatnonzero(counts)
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error over the bins of :func:`reliability` (Guo et al. 2017, section 2)."""
    return sum(b.count * abs(b.value - b.correct) for b in bins) / sum(b.count for b in bins)


def brier(probabilities: np.ndarray, correct: np.ndarray) -> float:
    """Compute the mean squared difference between probabilities and outcomes (Brier 1950)."""
    return float(((probabilities - correct) ** 2).mean())


def equal_runs(ordered: np.ndarray) -> np.ndarray:
    """Find where each run of equal values starts in an array of one at least."""
    return np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))


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


def bootstrap_means(values: np.ndarray, num_bootstrap: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """Means over problems (or solutions) sampled with replacement: (problems, columns) → (num_bootstrap, columns).

    All columns share the resamples.
    """
    total = len(values)
    return np.concatenate([counts @ values / total for counts in resamples(total, num_bootstrap, seed)])


def resamples(total: int, num: int, seed: int | tuple[int, ...], width: int = 0) -> Iterator[np.ndarray]:
    """How often each of ``total`` is sampled with replacement: arrays (some, total) of ``num`` rows in all.

    Args:
        total: problems, or solutions.
        num: resamples.
        seed: of the draws.
        width: numbers that a row takes where it is used, if more than ``total``: pieces are made to fit memory.
    """
    rng, step = np.random.default_rng(seed), max(1, _CHUNK // max(total, width))
    for start in range(0, num, step):
        rows = min(step, num - start)
        sampled = rng.integers(total, size=(rows, total)) + total * np.arange(rows)[:, None]
        yield np.bincount(sampled.ravel(), minlength=rows * total).reshape(rows, total)


def interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 2.5th and the 97.5th percentile over the first axis."""
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return low, high


def low_high(values: np.ndarray) -> tuple[float, float]:
    """Compute the interval of the resamples, which follow the value of the sample itself; NaN ones are left out.

    A resample may lack one kind of steps or solutions, and where all of them do the interval is the value alone.
    """
    resampled = values[1:][~np.isnan(values[1:])]
    low, high = interval(resampled if len(resampled) else values[:1])
    return float(low), float(high)
