"""Metrics that torchmetrics has not under one name."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryF1Score


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
