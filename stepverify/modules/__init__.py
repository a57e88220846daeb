"""Provide one Lightning module per training objective."""

from stepverify.modules.base import StepModule
from stepverify.modules.generator import GeneratorModule
from stepverify.modules.graded import GradedModule
from stepverify.modules.implicit import ImplicitRewardModel
from stepverify.modules.outcome import OutcomeVerifier
from stepverify.modules.process import ProcessRewardModel

__all__ = [
    "GeneratorModule", "GradedModule", "ImplicitRewardModel", "OutcomeVerifier", "ProcessRewardModel", "StepModule",
]  # fmt: skip
