"""Provide models: a Hugging Face backbone and a head.

The head is applied at scored positions only.
"""

from stepverify.models.backbone import Backbone, LoRA
from stepverify.models.heads import GeneratorModel, VerifierModel
from stepverify.models.implicit import ImplicitModel
from stepverify.models.load import load_encoder, load_verifier
from stepverify.models.outcome import OutcomeModel
from stepverify.models.process import ProcessModel

__all__ = [
    "Backbone", "GeneratorModel", "ImplicitModel", "LoRA", "OutcomeModel", "ProcessModel", "VerifierModel",
    "load_encoder", "load_verifier",
]  # fmt: skip
