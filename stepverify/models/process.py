"""Compute the labels' logits at step tags: the process reward model's head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from stepverify.data.batch import Batch
from stepverify.losses import bounded, log_partition
from stepverify.models.export import Head, output_rows
from stepverify.models.heads import Rows, VerifierModel
from stepverify.records import InputError

Neutral = Literal["positive", "negative"]


class ProcessModel(VerifierModel):
    """Compute the label tokens' logits at each step tag.

    Source: Lightman et al. 2023, section 2.6.

    Args:
        backbone: a causal language model, or a token classifier with as many labels, whose head is used instead.
        label_ids: ids of the labels negative, positive and, if there is a third one, neutral.
        over_vocabulary: outputs are log-probabilities of the labels over the whole vocabulary; otherwise the labels'
            logits. The values are the same.
        neutral: how values count P(neutral) if there are three labels.
    """

    objective = "process"

    def __init__(
        self,
        backbone: nn.Module,
        label_ids: tuple[int, ...],
        over_vocabulary: bool = False,
        neutral: Neutral = "positive",
    ) -> None:
        super().__init__(backbone)
        self.over_vocabulary, self.neutral = over_vocabulary, neutral
        self.labels = ("incorrect", "correct", "neutral")[: len(label_ids)]
        if (trained := getattr(backbone, "score", None)) is not None:
            self.form = "classifier"
            if trained.out_features != len(self.labels):
                raise InputError(
                    f"a token classifier of {trained.out_features} labels is no process reward model "
                    f"with {len(label_ids)} labels"
                )
        elif max(label_ids) >= (rows := self.output_matrix()[0].shape[0]):
            raise InputError(f"label id {max(label_ids)} is outside the model's {rows} output rows")
        self.register_buffer("label_ids", torch.tensor(label_ids), persistent=False)

    def head_rows(self) -> Rows | None:
        """Pick the labels' rows, unless a classifier has a head of its own."""
        if self.form == "classifier":
            return None
        weight, bias = self.output_matrix()
        ids: Tensor = self.label_ids  # type: ignore[assignment]
        return weight[ids], None if bias is None else bias[ids]

    def read(self, hidden: Tensor, batch: Batch, rows: Rows | None) -> Tensor:
        """Compute the (M, 2 or 3) logits of the labels."""
        if rows is None:
            return self.backbone.score(hidden)  # type: ignore[operator]
        logits = bounded(nn.functional.linear(hidden, *rows), self.softcap, self.logit_scale)
        if self.over_vocabulary:
            total = log_partition(hidden, *self.output_matrix(), scale=self.logit_scale, softcap=self.softcap)
            logits = logits - total[:, None]
        return logits

    def head_parameters(self) -> Iterable[Tensor | None]:
        """Return the output matrix, or the parameters of a classifier's own head."""
        if self.form == "classifier":
            return self.backbone.score.parameters()  # type: ignore[union-attr]
        return self.output_matrix()

    def values(self, outputs: Tensor) -> Tensor:
        """Compute P(correct), with P(neutral) if neutral counts as positive."""
        probabilities = outputs.float().softmax(-1)
        if len(self.labels) == 2 or self.neutral == "negative":
            return probabilities[:, 1]
        return probabilities[:, 1:].sum(-1).clamp(max=1.0)  # a rounded sum of probabilities can lie above 1

    def classifier_head(self, state: Mapping[str, Tensor]) -> Head:
        """Return the labels' rows of the vocabulary head."""
        if self.form == "classifier":
            return Head(state["score.weight"], state.get("score.bias"), self.labels)
        ids: Tensor = self.label_ids  # type: ignore[assignment]
        weight, bias = output_rows(self.backbone, state, ids.tolist())
        return Head(self.logit_scale * weight, None if bias is None else self.logit_scale * bias, self.labels)

    def check_classifier(self) -> None:
        """Refuse bounded logits, which a linear head cannot give."""
        if self.softcap is not None:
            raise InputError(
                f"its logits are bounded (final_logit_softcapping: {self.softcap}), a classifier's are not"
            )
        super().check_classifier()
