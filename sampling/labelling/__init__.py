"""Label the steps of solutions, with rollouts or by other means.

Rollouts follow one of several strategies, and a judge may have to confirm their labels.
"""

from sampling.labelling.base import StepLabeller
from sampling.labelling.judge import Consensus
from sampling.labelling.oracle import SyntheticOracle
from sampling.labelling.rollouts import Rollouts
from sampling.labelling.run import Budget
from sampling.labelling.sample_counts import SampleCounts
from sampling.labelling.strategies import BinarySearch, EarlyStop, Exhaustive, Strategy
from sampling.labelling.verifier_scores import VerifierScores

__all__ = [
    "BinarySearch", "Budget", "Consensus", "EarlyStop", "Exhaustive", "Rollouts", "SampleCounts", "StepLabeller",
    "Strategy", "SyntheticOracle", "VerifierScores",
]  # fmt: skip
