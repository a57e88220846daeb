"""Lightning modules, one an objective."""

from stepverify.modules.base import VerifierModule
from stepverify.modules.generator import GeneratorModule
from stepverify.modules.outcome import OutcomeVerifier
from stepverify.modules.process import ProcessRewardModel

__all__ = ["GeneratorModule", "OutcomeVerifier", "ProcessRewardModel", "VerifierModule"]
