"""The interface of losses: outputs and the structure of a batch → (sum, count)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from stepverify.data.batch import ScoredPositions
from stepverify.data.encode import Example


class Verifier(Protocol):
    """What a loss may ask of the model that gave the outputs."""

    def values(self, outputs: Tensor) -> Tensor:
        """Turn (M, …) outputs into (M,) probabilities in [0, 1]."""
        ...


class Loss(ABC):
    """A training loss over the scored positions of a batch.

    A subclass is chosen by ``class_path`` (or its bare name) as ``model.init_args.loss``. It sees which positions
    belong to which solution and which solutions to which problem, so that losses of pairs fit as well as those of
    single positions.
    """

    def denominator(self, example: Example) -> float | None:
        """Give what an encoded solution adds to the number that the summed loss is divided by.

        That number is summed over all solutions of an optimizer step, on all devices. None, the default, counts the
        weights of its positions; a loss of pairs overrides it, with the number of pairs for example.
        """
        return None

    @abstractmethod
    def __call__(self, outputs: Tensor, at: ScoredPositions, model: Verifier) -> tuple[Tensor, Tensor]:
        """Compute the loss.

        Args:
            outputs: (M, …) of the model at the M distinct positions.
            at: their targets and weights, and who reads them: ``outputs[at.entries]`` are (N, …), solution by solution,
                entry n belongs to solution ``at.owner[n]``, solution b to problem ``at.problem[b]``.
            model: gave the outputs.

        Returns:
            Sum and count; the mean that is logged is their quotient.
        """


class OutcomeLoss(Loss):
    """A loss of an outcome verifier: outputs are (M,) value logits, targets the outcome in [0, 1]."""


class StepLoss(Loss):
    """A loss of a process reward model: outputs are (M, 2) logits of the labels negative and positive.

    With a neutral label they are (M, 3), neutral last. Targets are (M,) probabilities that the step is correct,
    or :data:`stepverify.data.targets.NEUTRAL`.

    Attributes:
        takes_vocabulary: outputs may be logarithms of probabilities among the whole vocabulary.
        takes_neutral: targets may be neutral.
    """

    takes_vocabulary = False
    takes_neutral = False


def weighted(losses: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sum (M,) losses by their weights, None being 1 each; gives (sum, count)."""
    weights = torch.ones_like(losses) if weights is None else weights
    return (losses * weights).sum(), weights.sum()
