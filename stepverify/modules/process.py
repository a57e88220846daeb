"""The process reward model (PRM): the probability that each step is correct."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy

from stepverify.data.batch import Batch
from stepverify.data.encode import Example
from stepverify.data.targets import NEUTRAL, StepTargets
from stepverify.losses import StepCrossEntropy, StepLoss, StepMSE
from stepverify.metrics import AUROC, CalibrationError, ErrorF1, FirstErrorAccuracy
from stepverify.models import Backbone, ProcessModel
from stepverify.models.heads import Neutral
from stepverify.modules.base import StepModule
from stepverify.records import InputError, Solution
from stepverify.template import Template


class ProcessRewardModel(StepModule):
    """Next-token prediction of ``+`` or ``-`` at the tag after every step (Lightman et al. 2023, section 2.6).

    With a ``neutral`` token in the template it is one of three labels, and steps rated 0 are learned as such where
    ``targets.neutral`` is ``class``. A step's value is P(positive), and P(neutral) added or not.

    Args:
        backbone: the generator that the reward model starts from; or the export of another reward model, of which it
            then takes over the label rows and the template too: a second stage on smaller or better data.
        template: as :class:`StepModule`.
        max_length: as :class:`StepModule`.
        optimizer: as :class:`StepModule`.
        warmup: as :class:`StepModule`.
        decay: as :class:`StepModule`.
        lm_weight: as :class:`StepModule`.
        targets: what the step labels mean.
        loss: ``cross_entropy`` of the labels, soft ones too; ``mse``, the squared distance of a step's value from its
            target: regression on the share of correct rollouts; or another :class:`~stepverify.losses.StepLoss`.
        loss_over: the loss is of the labels' probabilities among the ``labels`` alone, or among the whole
            ``vocabulary`` at the tags, as next-token prediction has it. Scores compare the labels either way.
        neutral: what values count P(neutral) as, and metrics a neutral step, where it is a label of its own; the export
            says it, and whoever scores with that may choose the other. None takes what the backbone's export says, or
            ``positive`` (Lightman et al. 2023, section 2.6).
    """

    def __init__(
        self,
        backbone: Backbone,
        template: Template | None = None,
        max_length: int = 1024,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(parameters, lr=1e-5),
        warmup: float = 0.05,
        decay: Literal["cosine", "linear", "constant"] = "cosine",
        lm_weight: float = 0.0,
        targets: StepTargets = StepTargets(),  # noqa: B008 - frozen
        loss: Literal["cross_entropy", "mse"] | StepLoss = "cross_entropy",
        loss_over: Literal["labels", "vocabulary"] = "labels",
        neutral: Neutral | None = None,
    ) -> None:
        super().__init__(backbone, template, max_length, optimizer, warmup, decay, lm_weight)
        self.targets, self.over_vocabulary = targets, loss_over == "vocabulary"
        named = {"cross_entropy": StepCrossEntropy, "mse": StepMSE}
        self.loss = loss if isinstance(loss, StepLoss) else named[loss]()
        for refused, key in (
            (self.over_vocabulary and not self.loss.takes_vocabulary, "loss_over: vocabulary"),
            (targets.neutral == "class" and not self.loss.takes_neutral, "targets.neutral: class"),
        ):
            if refused:
                raise InputError(f"loss: {type(self.loss).__name__} has no place for {key}")
        self.neutral: Neutral = neutral or self.backbone_facts.get("neutral", "positive")
        if targets.neutral == "class" and self.template.neutral is None:
            raise InputError("targets.neutral: class, but template.neutral names no token for it")
        _ = self.encoder.label_ids  # tag and labels must be single tokens: say so before any data is read

    def encode(self, record: Solution, *, labelled: bool) -> Example:
        """Read at the tags of labelled steps, or at all of them to predict."""
        if not labelled:
            return self.encoder.process(record, None)
        return self.encoder.process(record, self.targets.of(record))

    def build(self) -> ProcessModel:
        """Load the backbone; its own output rows of the label tokens are the head."""
        return ProcessModel(
            self.backbone_source.load(self.sharding()), self.encoder.label_ids, self.over_vocabulary, self.neutral
        )

    def build_metrics(self) -> MetricCollection:
        """Of steps, and of solutions their first error. F1 is that of the error class: an incorrect step is a positive."""
        metrics = {
            "step_auroc": AUROC(), "step_accuracy": BinaryAccuracy(), "error_f1": ErrorF1(),
            "ece": CalibrationError(), "first_error_accuracy": FirstErrorAccuracy(),
        }  # fmt: skip
        # Grouping would have metrics whose counts happen to be equal in the first batch share them ever after.
        return MetricCollection(metrics, compute_groups=False)  # type: ignore[arg-type]

    def update_metrics(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Feed every labelled step of every solution; a soft target counts as correct from 1/2 on."""
        assert self.model is not None
        assert batch.scored.targets is not None
        entries = batch.scored.entries
        correct = (self.truth(batch.scored.targets)[entries] >= 0.5).long()
        metrics.update(self.model.values(outputs)[entries], correct, owner=batch.scored.owner)

    def verdicts(self, example: Example) -> list[bool]:
        """Of each labelled step."""
        return (self.truth(torch.tensor(example.targets or [])) >= 0.5).tolist()

    def truth(self, targets: Tensor) -> Tensor:
        """A neutral step counts as its value does."""
        return torch.where(targets == NEUTRAL, float(self.neutral == "positive"), targets)

    def facts(self) -> dict[str, Any]:
        """Ids of tag and labels too: a reader of the export checks them against its tokenizer."""
        neutral = {} if self.template.neutral is None else {"neutral": self.neutral}
        return super().facts() | {"ids": self.encoder.judging_ids()} | neutral
