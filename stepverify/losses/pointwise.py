"""Compute losses of single positions, each value against its own target."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stepverify.data.batch import ScoredPositions
from stepverify.data.targets import NEUTRAL
from stepverify.losses.base import Loss, OutcomeLoss, StepLoss, ValueModel, weighted


class TokenNLL(Loss):
    """Sum the negative log-likelihood of solution tokens, the model's outputs."""

    def __call__(self, outputs: Tensor, at: ScoredPositions, model: ValueModel) -> tuple[Tensor, Tensor]:
        """Sum over tokens, in nats."""
        return weighted(outputs, at.weights)


class OutcomeMSE(OutcomeLoss):
    """Compute the squared error between value and outcome.

    Source: Cobbe et al. 2021, section 4.2.
    """

    def __call__(self, outputs: Tensor, at: ScoredPositions, model: ValueModel) -> tuple[Tensor, Tensor]:
        """Sum over tokens; a value is the sigmoid of its logit."""
        return weighted((outputs.float().sigmoid() - _targets(at)).square(), at.weights)


class OutcomeBCE(OutcomeLoss):
    """Compute the binary cross-entropy between value and outcome, soft outcomes too."""

    def __call__(self, outputs: Tensor, at: ScoredPositions, model: ValueModel) -> tuple[Tensor, Tensor]:
        """Sum over tokens, in nats."""
        losses = F.binary_cross_entropy_with_logits(outputs.float(), _targets(at), reduction="none")
        return weighted(losses, at.weights)


class StepCrossEntropy(StepLoss):
    """Compute the cross-entropy of label tokens at step tags, soft labels too.

    Source: Lightman et al. 2023, section 2.6.
    """

    takes_vocabulary = True
    takes_neutral = True

    def __call__(self, outputs: Tensor, at: ScoredPositions, model: ValueModel) -> tuple[Tensor, Tensor]:
        """Sum over step tags, in nats.

        Probabilities are over the labels, or already normalized over the vocabulary by the model.
        """
        targets = _targets(at)
        log_p = outputs.float() if getattr(model, "over_vocabulary", False) else outputs.float().log_softmax(-1)
        losses = -(targets * log_p[:, 1] + (1 - targets) * log_p[:, 0])
        if log_p.shape[1] > 2:
            losses = torch.where(targets == NEUTRAL, -log_p[:, 2], losses)
        return weighted(losses, at.weights)


class StepMSE(StepLoss):
    """Compute the squared error between a step's value and its target.

    This is regression on the share of correct rollouts.
    """

    def __call__(self, outputs: Tensor, at: ScoredPositions, model: ValueModel) -> tuple[Tensor, Tensor]:
        """Sum over step tags."""
        return weighted((model.values(outputs).float() - _targets(at)).square(), at.weights)


def _targets(at: ScoredPositions) -> Tensor:
    assert at.targets is not None
    return at.targets
