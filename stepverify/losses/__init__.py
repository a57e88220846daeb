"""Provide the training losses, one class each, chosen by ``class_path``."""

from stepverify.losses.base import Loss, OutcomeLoss, StepLoss, weighted
from stepverify.losses.binomial import StepBinomial
from stepverify.losses.pointwise import OutcomeBCE, OutcomeMSE, StepCrossEntropy, StepMSE, TokenNLL
from stepverify.losses.ranking import BetweenSolutions, OutcomeRanking, SolutionRanking, StepRanking
from stepverify.losses.vocabulary import bounded, log_partition, token_nll

__all__ = [
    "BetweenSolutions", "Loss", "OutcomeBCE", "OutcomeLoss", "OutcomeMSE", "OutcomeRanking", "SolutionRanking",
    "StepBinomial", "StepCrossEntropy", "StepLoss", "StepMSE", "StepRanking", "TokenNLL", "bounded", "log_partition",
    "token_nll", "weighted",
]  # fmt: skip
