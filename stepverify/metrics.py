"""Metrics that torchmetrics has not under one name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryF1Score
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat


class ErrorF1(BinaryF1Score):
    """F1 of finding the wrong steps: a step with P(right) < 1/2 is called wrong."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Feed probabilities of being right, and 1 for right or 0 for wrong: shapes (M,)."""
        super().update(1 - preds, 1 - target)


class FirstErrorAccuracy(Metric):
    """Share of solutions whose first step with P(right) < 1/2 is the first wrong one, or that have neither.

    A solution counts once, whatever its number of steps, and only its labelled steps are looked at.
    """

    full_state_update = False
    higher_is_better = True
    hits: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, owner: Tensor) -> None:
        """Feed the steps of whole solutions, in order.

        Args:
            preds: (M,) probabilities of being right.
            target: (M,) 1 for right, 0 for wrong.
            owner: (M,) which solution each step belongs to; the steps of one stand together.
        """
        solutions, rows = owner.unique_consecutive(return_inverse=True)
        places = torch.arange(len(owner), device=owner.device)

        def first(wrong: Tensor) -> Tensor:
            none = places.new_full((len(solutions),), len(owner))
            return none.scatter_reduce(0, rows[wrong], places[wrong], "amin")

        self.hits += (first(preds < 0.5) == first(target == 0)).sum()
        self.total += len(solutions)

    def compute(self) -> Tensor:
        """A share in [0, 1]."""
        return self.hits / self.total


class AUCWithinGroups(Metric):
    """Area under the ROC curve of each group, a tie counting half; the mean over those that have both kinds.

    Of the solutions of a problem it says how well one is chosen. The area over all solutions is high too where values
    only tell hard problems from easy ones. NaN where no group has both kinds.
    """

    full_state_update = False
    higher_is_better = True
    preds: list[Tensor]
    target: list[Tensor]
    groups: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in ("preds", "target", "groups"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor, names: Sequence[str]) -> None:
        """Feed values (M,), 1 for right or 0 for wrong (M,), and the names of the M groups that they belong to."""
        # Names do not travel between processes, and numbers given in the order of arrival would differ on each.
        digests = [int.from_bytes(hashlib.sha256(n.encode()).digest()[:8], signed=True) for n in names]
        self.preds.append(preds.float())
        self.target.append(target)
        self.groups.append(torch.tensor(digests, device=preds.device))

    def compute(self) -> Tensor:
        """An area in [0, 1]."""
        preds, target, groups = (dim_zero_cat(state) for state in (self.preds, self.target, self.groups))
        sizes = groups.unique(return_counts=True)[1].tolist()
        order = groups.argsort()
        areas = []
        for values, right in zip(preds[order].split(sizes), target[order].split(sizes), strict=True):
            if 0 < right.sum() < len(right):
                areas.append(binary_auroc(values, right, validate_args=False))
        return torch.stack(areas).mean() if areas else preds.new_tensor(torch.nan)
