"""Score solutions with exported verifiers and released models, under one contract."""

from sampling.scorers.base import Scorer
from sampling.scorers.cross_fitted import CrossFitted
from sampling.scorers.exported import ExportedVerifier
from sampling.scorers.pooling import PoolingVerifier
from sampling.scorers.ray import RayScorer
from sampling.scorers.released import TRLPRM, MathShepherdPRM, QwenPRM, ReleasedPRM, RLHFlowPRM, SkyworkPRM

__all__ = [
    "TRLPRM", "CrossFitted", "ExportedVerifier", "MathShepherdPRM", "PoolingVerifier", "QwenPRM", "RLHFlowPRM",
    "RayScorer", "ReleasedPRM", "Scorer", "SkyworkPRM",
]  # fmt: skip
