"""Models: a Hugging Face backbone and a head that is applied only where something is read."""

from stepverify.models.backbone import Backbone, LoRA
from stepverify.models.heads import GeneratorModel, ProcessModel, VerifierModel
from stepverify.models.load import load_encoder, load_verifier
from stepverify.models.outcome import OutcomeModel

__all__ = [
    "Backbone", "GeneratorModel", "LoRA", "OutcomeModel", "ProcessModel", "VerifierModel", "load_encoder", "load_verifier",
]  # fmt: skip
