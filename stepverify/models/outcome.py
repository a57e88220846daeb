"""Compute one value logit per token for the outcome verifier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from stepverify.data.batch import Batch
from stepverify.models.backbone import without_adapters
from stepverify.models.calibrated import CalibratedModel
from stepverify.models.export import Form, Head, output_rows
from stepverify.models.heads import Rows
from stepverify.models.rows import decoder_of
from stepverify.models.sharded import gathered, home, whole
from stepverify.records import InputError


class ReservedLogit(nn.Module):
    """Apply gain and bias to the logit of a reserved token.

    The token is never written (Cobbe et al. 2021, appendix E).

    Args:
        token_id: its id; its row of the output matrix is trained with the backbone.
    """

    def __init__(self, token_id: int) -> None:
        super().__init__()
        self.token_id = token_id
        self.gain, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor, row: Tensor) -> Tensor:
        """Compute (M,) value logits.

        Args:
            hidden: (M, D) hidden states.
            row: (D,) the token's row of the output matrix.
        """
        return self.gain * (hidden @ row).to(self.gain.dtype) + self.bias


class OutcomeModel(CalibratedModel):
    """Compute one value logit per token (Cobbe et al. 2021).

    Args:
        backbone: a causal language model, or an exported one-label token classifier, whose head is taken over.
        reserved: id of the token whose logit is the value; None adds a linear layer on the hidden state.
        trained: value head of an earlier verifier, to continue training.

    Attributes:
        form: ``classifier``, or ``value_head`` if transformers has no token classifier for the architecture.
    """

    objective = "outcome"
    labels = ("correct",)

    def __init__(self, backbone: nn.Module, reserved: int | None = None, trained: nn.Module | None = None) -> None:
        super().__init__(backbone)
        self.form: Form = "classifier"
        try:
            self.check_classifier()
        except InputError:
            self.form = "value_head"
        self.value_head: nn.Module
        if (trained := trained or getattr(backbone, "score", None)) is not None:
            self.value_head = trained
        elif reserved is not None:
            if reserved >= (rows := self.output_matrix()[0].shape[0]):
                raise InputError(f"token {reserved} is outside the model's {rows} output rows")
            self.value_head = ReservedLogit(reserved)
        else:
            self.value_head = nn.Linear(self.output_matrix()[0].shape[1], 1)
            # Start with value 1/2 everywhere instead of random values.
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)

    def head_rows(self) -> Rows | None:
        """Pick the reserved token's row."""
        if not isinstance(self.value_head, ReservedLogit):
            return None
        return self.output_matrix()[0][self.value_head.token_id], None

    def read(self, hidden: Tensor, batch: Batch, rows: Rows | None) -> Tensor:
        """Compute (M,) value logits."""
        if rows is not None:
            return self.value_head(self.logit_scale * hidden, rows[0])
        return self.value_head(hidden.to(self.value_head.weight.dtype)).squeeze(-1)  # type: ignore[arg-type]

    def head_parameters(self) -> Iterable[Tensor | None]:
        """Return the value head, and the output matrix if it is used."""
        reserved = isinstance(self.value_head, ReservedLogit)
        return [*self.value_head.parameters(), *(self.output_matrix()[:1] if reserved else ())]

    @torch.no_grad()
    def start_undecided(self, ids: list[int]) -> None:
        """Normalize a reserved logit to mean 0 and variance 1.

        The statistics are taken along a text.

        This sets its gain and bias. Its own offset and scale are arbitrary: with a gain of 1, that of
        Qwen2.5-Coder-0.5B has a standard deviation of 3.3, so initial values would be random but near 0 or 1, from
        which the squared error of a sigmoid recovers slowly or never.

        Args:
            ids: token ids of the text.
        """
        if not isinstance(self.value_head, ReservedLogit):
            return
        decoder = decoder_of(without_adapters(self.backbone))
        was_training = self.training
        self.eval()
        base = without_adapters(self.backbone)
        with self._plain(), gathered(base):
            tokens = torch.tensor([ids], device=home(base))
            hidden = self.logit_scale * decoder(input_ids=tokens, use_cache=False).last_hidden_state[0]
        self.train(was_training)
        # The first token's state is unlike all others (an attention sink).
        row = whole(self.output_matrix()[0])[self.value_head.token_id]
        logits = self.value_head.to(hidden.device)(hidden[1:], row)
        std, mean = torch.std_mean(logits)
        if std == 0:  # a row of zeros, as new tokens may have, has no scale
            return
        self.value_head.gain.div_(std)
        self.value_head.bias.copy_(-mean / std)

    def classifier_head(self, state: Mapping[str, Tensor]) -> Head:
        """Return the value head, including its calibration."""
        if isinstance(self.value_head, ReservedLogit):
            row, _ = output_rows(self.backbone, state, [self.value_head.token_id])
            weight = state["value_head.gain"] * self.logit_scale * row
        else:
            weight = state["value_head.weight"]
        gain, bias = state["scaling"]
        return Head(gain * weight, gain * state["value_head.bias"] + bias, self.labels)
