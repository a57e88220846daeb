"""Show what a fit does: metrics, speed, figures and solutions in loggers, lines on the terminal."""

from stepverify.monitoring.figures import CalibrationFigure, PrecisionRecallCurve
from stepverify.monitoring.hyperparameters import Hyperparameters
from stepverify.monitoring.interval import LoggingInterval
from stepverify.monitoring.outline import Outline
from stepverify.monitoring.progress import ProgressLines
from stepverify.monitoring.solutions import SolutionText
from stepverify.monitoring.throughput import Throughput

__all__ = [
    "CalibrationFigure",
    "Hyperparameters",
    "LoggingInterval",
    "Outline",
    "PrecisionRecallCurve",
    "ProgressLines",
    "SolutionText",
    "Throughput",
]
