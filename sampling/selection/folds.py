"""Divide problems into folds for cross-validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def folds_of(problems: Sequence[str], seed: int, num_folds: int = 2) -> np.ndarray:
    """Divide problems into folds of equal size by a hash of their ids.

    Args:
        problems: ids, in any order.
        seed: part of what is hashed.
        num_folds: at most the number of problems, so that no fold is empty.

    Returns:
        (problems,), the number of each one's fold, from 0.
    """
    order = sorted(range(len(problems)), key=lambda i: hashlib.sha256(f"{seed}/{problems[i]}".encode()).digest())
    folds = np.zeros(len(problems), int)
    folds[order] = (len(order) - 1 - np.arange(len(order))) * num_folds // max(len(order), 1)
    return folds
