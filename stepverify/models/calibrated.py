"""Calibrate the log-odds that verifiers of whole solutions compute."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stepverify.models.heads import VerifierModel


class CalibratedModel(VerifierModel):
    """Compute (M,) log-odds of a correct final answer, with a gain and a bias of their own.

    Attributes:
        scaling: (2,) gain and bias.
    """

    scaling: Tensor

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.register_buffer("scaling", torch.tensor([1.0, 0.0]))

    def scale(self, gain: float = 1.0, bias: float = 0.0) -> None:
        """Set the calibration: values are sigmoid(gain · logit + bias).

        The logits that are trained do not change.
        """
        self.scaling.copy_(torch.tensor([gain, bias]))

    def values(self, outputs: Tensor) -> Tensor:
        """Compute the calibrated probability that the solution's final answer is correct."""
        gain, bias = self.scaling
        return (gain * outputs.float() + bias).sigmoid()
