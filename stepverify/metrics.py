"""Metrics that torchmetrics has not under one name."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.classification import BinaryF1Score


class ErrorF1(BinaryF1Score):
    """F1 of finding the wrong steps: a step with P(right) < 1/2 is called wrong."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Feed probabilities of being right, and 1 for right or 0 for wrong: shapes (M,)."""
        super().update(1 - preds, 1 - target)
