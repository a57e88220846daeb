"""Who labels the steps of solutions: rollouts by one of several strategies, or the oracle of synthetic problems."""

from sampling.labellers.base import StepLabeller
from sampling.labellers.oracle import SyntheticOracle
from sampling.labellers.rollouts import Budget, Rollouts
from sampling.labellers.strategies import BinarySearch, EarlyStop, Exhaustive, Strategy

__all__ = [
    "BinarySearch", "Budget", "EarlyStop", "Exhaustive", "Rollouts", "StepLabeller", "Strategy", "SyntheticOracle",
]  # fmt: skip
