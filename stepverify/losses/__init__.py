"""Provide the training losses, one class each, chosen by ``class_path``."""

from stepverify.losses.base import Loss, OutcomeLoss, StepLoss, weighted
from stepverify.losses.pointwise import OutcomeBCE, OutcomeMSE, StepCrossEntropy, StepMSE, TokenNLL
from stepverify.losses.vocabulary import bounded, log_partition, token_nll

__all__ = [
    "Loss", "OutcomeBCE", "OutcomeLoss", "OutcomeMSE", "StepCrossEntropy", "StepLoss", "StepMSE", "TokenNLL",
    "bounded", "log_partition", "token_nll", "weighted",
]  # fmt: skip
