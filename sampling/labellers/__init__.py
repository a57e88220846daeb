"""Who labels the steps of solutions: rollouts by one of several strategies, with or without a judge; others."""

from sampling.labellers.base import StepLabeller
from sampling.labellers.consensus import Consensus
from sampling.labellers.oracle import SyntheticOracle
from sampling.labellers.rollouts import Rollouts
from sampling.labellers.run import Budget
from sampling.labellers.strategies import BinarySearch, EarlyStop, Exhaustive, Strategy
from sampling.labellers.teacher import VerifierScores

__all__ = [
    "BinarySearch", "Budget", "Consensus", "EarlyStop", "Exhaustive", "Rollouts", "StepLabeller", "Strategy",
    "SyntheticOracle", "VerifierScores",
]  # fmt: skip
