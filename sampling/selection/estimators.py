"""Estimate the probability to be correct with N samples, for every rule.

Pure. Each estimate is over the random subsets of N of all M samples. Best-of-N and pass@k have closed forms; votes are
averaged over random subsets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from stepverify.statistics import equal_runs


def best_of_n(scores: Sequence[float], correct: Sequence[bool], sizes: Sequence[int]) -> np.ndarray:
    """Compute the accuracy of the best-scored of N random samples, exactly.

    Of the subsets of N of M samples, C(M-1-i, N-1) / C(M, N) have the i-th best (from 0) as their best. Samples of
    equal score are selected with equal probability.

    Args:
        scores: (M,), higher is better; -inf is allowed.
        correct: (M,).
        sizes: (S,), each from 1 to M.

    Returns:
        (S,), in [0, 1].
    """
    total = len(scores)
    values = -np.asarray(scores, dtype=float)
    order = values.argsort(kind="stable")
    starts = equal_runs(values[order])
    counts = np.diff(starts, append=total)
    share = np.add.reduceat(np.asarray(correct, dtype=float)[order], starts) / counts
    return _first_probabilities(total, tuple(sizes)) @ np.repeat(share, counts)


@lru_cache(maxsize=8)
def _first_probabilities(total: int, sizes: tuple[int, ...]) -> np.ndarray:
    """Compute the probability that each sample is the best of N.

    Shape (S, M): for each N, and the i-th best of M samples. Each column follows from the one before by a ratio below
    1.
    """
    n, i = np.array(sizes)[:, None], np.arange(total - 1)[None, :]
    _check_sizes(sizes, total)
    ratios = np.maximum(total - n - i, 0) / (total - 1 - i)
    return np.concatenate([n / total, n / total * np.cumprod(ratios, axis=1)], axis=1)


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Estimate pass@k without bias.

    This is 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, section 2.1).
    """
    _check_sizes((k,), num_samples)
    incorrect = num_samples - num_correct
    return 1.0 - math.prod(max(incorrect - i, 0) / (num_samples - i) for i in range(k))


def vote(
    classes: Sequence[int | None],
    correct: Sequence[bool],
    sizes: Sequence[int],
    weights: Sequence[float] | None = None,
    *,
    num_subsets: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Estimate the accuracy of the majority vote of N random samples.

    Classes with equally many votes win with equal probability. A subset without any vote is incorrect. Exact at N = 1
    and N = M, an average over random subsets in between.

    Args:
        classes: (M,), the class of each answer; None is no vote.
        correct: (M,); a class is correct to the share of its members that are.
        sizes: (S,), each from 1 to M.
        weights: (M,), at least 0; None counts every vote once (Wang et al. 2022, self-consistency).
        num_subsets: random subsets for each N.
        seed: equal seeds give equal subsets, whatever the votes.

    Returns:
        (S,), in [0, 1].
    """
    _check_sizes(sizes, len(classes))
    grid = tuple(sorted(set(sizes)))
    voters, votes, cells = _ballots(tuple(classes), grid, num_subsets, seed)
    if not len(votes):
        return np.zeros(len(sizes))
    weight = np.ones(len(votes)) if weights is None else np.asarray(weights, dtype=float)[voters]
    shape = (len(grid) + 1, votes.max() + 1, num_subsets)

    def tally(values: np.ndarray) -> np.ndarray:
        # Not a matrix product, whose time grows with the number of classes.
        added = np.bincount(cells, weights=np.repeat(values, num_subsets), minlength=math.prod(shape))
        return added.reshape(shape)[:-1].cumsum(axis=0)

    sums = tally(weight)
    # Votes of weight 0 still count if there are no others.
    present = (sums if weight.min() > 0 else tally(np.ones(len(votes)))) > 0
    # Equal sums of weights may differ in their last bits, by the order of addition.
    winners = present & (sums >= sums.max(axis=1, keepdims=True) * (1 - 1e-12))
    solved = np.asarray(correct, dtype=float)[voters]
    share = np.bincount(votes, weights=solved) / np.bincount(votes)
    probabilities = (winners * share[:, None]).sum(axis=1) / np.maximum(winners.sum(axis=1), 1)
    curve = dict(zip(grid, probabilities.mean(axis=1), strict=True)) | {1: solved.sum() / len(classes)}
    return np.array([curve[n] for n in sizes])


@lru_cache(maxsize=1)
def _ballots(
    classes: tuple[int | None, ...], grid: tuple[int, ...], num_subsets: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prepare votes for counting: voters, their classes, and tally cells.

    A tally has the shape (parts, classes, subsets). Subsets come last, so that numpy's inner loops are long: there are
    few sizes and few classes. All rules of a problem share the cells.

    Returns:
        The samples that vote, (V,); the class of each, from 0, (V,); the tally cells that each vote counts in, (V *
        subsets,).
    """
    known = {c: k for k, c in enumerate(dict.fromkeys(c for c in classes if c is not None))}
    voters = np.array([i for i, c in enumerate(classes) if c is not None], dtype=int)
    votes = np.array([known[c] for c in classes if c is not None], dtype=int)
    part = _parts(len(classes), grid, num_subsets, seed)[voters]
    return voters, votes, ((part * len(known) + votes[:, None]) * num_subsets + np.arange(num_subsets)).ravel()


def top_k_votes(
    scores: Sequence[float],
    classes: Sequence[int | None],
    correct: Sequence[bool],
    sizes: Sequence[int],
    ks: Sequence[int],
    *,
    num_subsets: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Estimate the accuracy of the vote of the k best-scored of N.

    This is the rule of Cobbe et al. 2021, section 4. Samples of equal score are ordered at random, and classes with
    equally many votes win with equal probability. A sample without a class takes a place among the best, but does not
    vote. For k = 1 this is best-of-N, exactly; for larger k it is an average over the random subsets of :func:`vote`,
    and up to N = k it equals that curve.

    Args:
        scores: (M,), higher is better; -inf is allowed.
        classes: (M,), the class of each answer; None is no vote.
        correct: (M,); a class is correct to the share of its members that are.
        sizes: (S,), each from 1 to M.
        ks: (K,), numbers of samples that vote, each at least 1.
        num_subsets: random subsets for each N.
        seed: as for :func:`vote`.

    Returns:
        (K, S), in [0, 1].
    """
    total, grid = len(scores), tuple(sorted(set(sizes)))
    _check_sizes(sizes, total)
    known = {c: i for i, c in enumerate(dict.fromkeys(c for c in classes if c is not None))}
    if not known:
        return np.zeros((len(ks), len(sizes)))
    none = len(known)
    votes = np.array([none if c is None else known[c] for c in classes])
    solved = np.bincount(votes, weights=np.asarray(correct, dtype=float), minlength=none + 1)
    share = (solved / np.maximum(np.bincount(votes, minlength=none + 1), 1))[:none, None]
    order, ranks = _best_first(tuple(scores), grid, num_subsets, seed)
    cells = votes[order] * num_subsets + np.arange(num_subsets)
    curves = np.empty((len(ks), len(sizes)))
    for i, k in enumerate(ks):
        if k == 1:
            curves[i] = best_of_n(scores, correct, sizes)
            continue
        for s, size in enumerate(sizes):
            counts = np.bincount(cells[ranks[grid.index(size)] <= k], minlength=(none + 1) * num_subsets)
            counts = counts.reshape(-1, num_subsets)[:none]
            winners = (counts > 0) & (counts == counts.max(axis=0))
            probabilities = (winners * share).sum(axis=0) / np.maximum(winners.sum(axis=0), 1)
            curves[i, s] = probabilities.mean() if size > 1 else solved[:none].sum() / total
    return curves


@lru_cache(maxsize=1)
def _best_first(
    scores: tuple[float, ...], grid: tuple[int, ...], num_subsets: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sort the samples of each subset, best first, and rank them.

    Cached from one k to the next.

    Returns:
        The sorted samples, (M, subsets), and their ranks from 1 for each size, (sizes, M, subsets); a sample that is
        not in a subset has a rank beyond all others.
    """
    places = np.unique(-np.asarray(scores, dtype=float), return_inverse=True)[1]
    # Another random stream than that of the subsets, so that the order of equals does not depend on them.
    probability = np.random.default_rng((seed, 1)).random((len(scores), num_subsets))
    order = np.argsort(places[:, None] + probability, axis=0)
    first = np.take_along_axis(_parts(len(scores), grid, num_subsets, seed), order, axis=0)
    among = first <= np.arange(len(grid))[:, None, None]
    return order, np.where(among, among.cumsum(axis=1), np.iinfo(int).max)


@lru_cache(maxsize=1)
def _parts(total: int, grid: tuple[int, ...], num_subsets: int, seed: int) -> np.ndarray:
    """Return the first size at which each subset holds a sample.

    Shape (M, num_subsets). A subset grows from size to size.
    """
    parts = np.tile(np.searchsorted(grid, np.arange(total), side="right"), (num_subsets, 1))
    np.random.default_rng(seed).permuted(parts, axis=1, out=parts)
    return np.ascontiguousarray(parts.T)


def elect(classes: Sequence[int | None], weights: Sequence[float], scores: Sequence[float]) -> int | None:
    """Elect the best-scored member of the class with most votes.

    The first of equals wins; None if there is no vote.
    """
    sums: dict[int, float] = {}
    for c, weight in zip(classes, weights, strict=True):
        if c is not None:
            sums[c] = sums.get(c, 0.0) + weight
    if not sums:
        return None
    winner = max(sums, key=sums.__getitem__)
    return max((i for i, c in enumerate(classes) if c == winner), key=scores.__getitem__)


def _check_sizes(sizes: Sequence[int], total: int) -> None:
    if not all(1 <= n <= total for n in sizes):
        raise ValueError(f"sizes: expected 1 to {total}, got {list(sizes)}")
