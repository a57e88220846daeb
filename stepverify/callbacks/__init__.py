"""Provide callbacks: checkpoints, export, score writing, throughput, progress, figures."""

from stepverify.callbacks.checkpoints import Checkpoints
from stepverify.callbacks.export import HuggingFaceExport
from stepverify.callbacks.figures import CalibrationFigure, PrecisionRecallCurve, SolutionText
from stepverify.callbacks.finite import StopAtNonFinite
from stepverify.callbacks.progress import ProgressLines
from stepverify.callbacks.throughput import Throughput
from stepverify.callbacks.writer import ScoreWriter

__all__ = [
    "CalibrationFigure",
    "Checkpoints",
    "HuggingFaceExport",
    "PrecisionRecallCurve",
    "ProgressLines",
    "ScoreWriter",
    "SolutionText",
    "StopAtNonFinite",
    "Throughput",
]
