"""Score solutions with exported verifiers, under one contract."""

from sampling.scorers.base import Scorer
from sampling.scorers.exported import ExportedVerifier
from sampling.scorers.pooling import PoolingVerifier

__all__ = ["ExportedVerifier", "PoolingVerifier", "Scorer"]
