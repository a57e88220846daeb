"""Compute the reward of a policy against its reference: the implicit reward model's values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stepverify.data.batch import Batch
from stepverify.models.calibrated import CalibratedModel


class ImplicitModel(CalibratedModel):
    """Compute β · log(π(y|x) / π_ref(y|x)) up to each solution token.

    Source: Yuan et al. 2024, section 3. The sum over a solution's tokens is its outcome reward, the log-odds of a
    correct final answer; the sum over the tokens so far is the Q value of the prefix (the paper's proposition), and
    the part of a step's own tokens is its process reward. Scored positions are all tokens of a solution.

    Args:
        backbone: the policy, a causal language model, possibly with adapters.
        beta: β.
        reference: the model of π_ref, for batches without its log-probabilities; None if all batches have them.
    """

    objective = "implicit"

    def __init__(self, backbone: nn.Module, beta: float = 0.05, reference: ImplicitModel | None = None) -> None:
        super().__init__(backbone)
        self.output_matrix()  # refuses a token classifier
        self.beta, self.reference = beta, reference

    def forward(self, batch: Batch) -> tuple[Tensor, None]:
        """Compute the (M,) rewards of the paths that end at ``batch.scored``."""
        scored = batch.scored
        if scored.reference is None:
            assert self.reference is not None, "batches without reference log-probabilities need the reference model"
            assert scored.targets is None, "a token with two targets would count twice"
            tokens = scored.index
            with torch.no_grad():
                reference = self.reference._log_probs(batch, tokens)
        else:
            assert scored.tokens is not None
            tokens, reference = scored.tokens, scored.reference
        ratios = self._log_probs(batch, tokens) - reference
        return along_paths(self.beta * ratios, tokens, batch.tree.end)[scored.index].float(), None

    def log_probs(self, batch: Batch) -> Tensor:
        """Compute the (M,) log-probability of the token at each scored position, in nats."""
        return self._log_probs(batch, batch.scored.index)

    def _log_probs(self, batch: Batch, tokens: Tensor) -> Tensor:
        # FSDP2 gathers parameters around the public methods, which therefore do not call each other.
        before = batch.tree.rows.flatten()[batch.tree.origin[tokens] - 1]
        return -self.token_nll(self.states(batch)[before], batch.input_ids[tokens])

    def score(self, batch: Batch) -> Tensor:
        """Compute (M,) rewards; :func:`stepverify.objectives.Reading` reads the steps' values from them."""
        return self(batch)[0]

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Compute without adapters and dropout meanwhile."""
        was_training = self.training
        self.eval()
        try:
            if hasattr(self.backbone, "disable_adapter"):
                with self.backbone.disable_adapter():  # type: ignore[operator]
                    yield
            else:
                yield
        finally:
            self.train(was_training)


def along_paths(values: Tensor, tokens: Tensor, end: Tensor) -> Tensor:
    """Sum values along the path of each token of a prefix tree.

    A token's continuations follow it without a gap, so a value counts from its token on up to the token's end.

    Args:
        values: (U,), one for each of ``tokens``.
        tokens: (U,) different tokens.
        end: (L,) as in :class:`stepverify.data.batch.Tree`.

    Returns:
        (L,) in float64, in which values that begin and end cancel out.
    """
    change = values.new_zeros(len(end) + 1, dtype=torch.float64)
    change = change.index_add(0, tokens, values.double()).index_add(0, end[tokens], -values.double())
    return change.cumsum(0)[:-1]
