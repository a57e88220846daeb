"""Define the interface of losses: outputs and batch → (sum, count)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from stepverify.data.batch import ScoredPositions
from stepverify.data.encode import Example


class ValueModel(Protocol):
    """Describe what a loss may use of the model."""

    def values(self, outputs: Tensor) -> Tensor:
        """Convert (M, …) outputs to (M,) probabilities in [0, 1]."""
        ...


class Loss(ABC):
    """Define a training loss over the scored positions of a batch.

    A subclass is chosen by ``class_path`` (or its bare name) as ``model.init_args.loss``. It sees which positions
    belong to which solution, and which solutions to which problem, so it may compare pairs as well as score single
    positions.

    Attributes:
        takes_weights: the weights of single positions matter; otherwise ``data`` refuses settings that change them.
    """

    takes_weights = True

    def denominator(self, example: Example) -> float | None:
        """Return what an encoded solution adds to the loss denominator.

        The denominator is summed over all solutions of an optimizer step, on all devices. None, the default, adds the
        weights of the solution's positions; a loss over pairs overrides it, for example with the number of pairs.
        """
        return None

    @abstractmethod
    def __call__(self, outputs: Tensor, at: ScoredPositions, model: ValueModel) -> tuple[Tensor, Tensor]:
        """Compute the loss.

        Args:
            outputs: (M, …) of the model at the M distinct positions.
            at: targets and weights of the positions, and the solutions that use them: ``outputs[at.entries]`` are (N,
                …), solution by solution; entry n belongs to solution ``at.owner[n]``, solution b to problem
                ``at.problem[b]``.
            model: the model that computed the outputs.

        Returns:
            Sum and count; their quotient is the mean that is logged.
        """


class OutcomeLoss(Loss):
    """Define a loss of an outcome verifier.

    Outputs are (M,) logits of values, targets (M,) outcomes in [0, 1].
    """


class StepLoss(Loss):
    """Define a loss of a process reward model.

    Outputs are (M, 2) logits of the labels negative and positive; with a neutral label (M, 3), neutral last. Targets
    are (M,) probabilities that the step is correct, or :data:`stepverify.data.targets.NEUTRAL`.

    Attributes:
        takes_vocabulary: outputs may be log-probabilities over the whole vocabulary.
        takes_neutral: targets may be neutral.
        takes_counts: positions weigh as many as a label has rollouts.
    """

    takes_vocabulary = False
    takes_neutral = False
    takes_counts = False


def weighted(losses: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sum (M,) losses by their weights; return (sum, count).

    Weights of None are 1 each.
    """
    weights = torch.ones_like(losses) if weights is None else weights
    return (losses * weights).sum(), weights.sum()
