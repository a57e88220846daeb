"""Provide callbacks: checkpoints, export, run folder, memory, score writing."""

from stepverify.callbacks.checkpoints import Checkpoints
from stepverify.callbacks.export import HuggingFaceExport
from stepverify.callbacks.finite import StopAtNonFinite
from stepverify.callbacks.writer import ScoreWriter

__all__ = ["Checkpoints", "HuggingFaceExport", "ScoreWriter", "StopAtNonFinite"]
