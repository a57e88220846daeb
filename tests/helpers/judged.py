"""Values, labels and folds of a verifier of which something is known."""

import numpy as np

from sampling.selection.folds import folds_of
from sampling.selection.judged import Judged, Votes


def judged(seed=0, num_problems=12, num_samples=6, max_steps=4, steps=False):
    """Solutions of one to some steps, correct the likelier the higher their lowest value is; steps by their own values."""
    rng = np.random.default_rng(seed)
    total = num_problems * num_samples
    counts = rng.integers(1, max_steps + 1, total)
    values = rng.uniform(0.05, 0.95, counts.sum())
    lowest = np.minimum.reduceat(values, np.cumsum(counts) - counts)
    folds = np.repeat(folds_of([f"p{i}" for i in range(num_problems)], seed, 3), num_samples)
    truths = (rng.random(len(values)) < values).astype(float)
    return Judged(
        name="prm", values=values, counts=counts, correct=rng.random(total) < lowest, folds=folds,
        samples=np.arange(total), truths=truths if steps else None,
    )  # fmt: skip


def votes(of, num_samples=6, num_classes=3, seed=0):
    """Votes of the same solutions: correct ones have class 0."""
    rng = np.random.default_rng((seed, 1))
    classes = np.where(of.correct, 0, rng.integers(1, num_classes, len(of.correct))).tolist()
    groups = np.arange(len(of.correct)).reshape(-1, num_samples)
    return Votes(size=num_samples, groups=[*groups], classes=classes, correct=of.correct, num_subsets=1, seed=0)
