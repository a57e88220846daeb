"""Train a process reward model (PRM).

It predicts the probability that each step is correct.
"""

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
from stepverify.models.process import Neutral
from stepverify.modules.base import StepModule
from stepverify.modules.optimization import Decay
from stepverify.records import InputError, Solution
from stepverify.template import Template


class ProcessRewardModel(StepModule):
    """Predict ``+`` or ``-`` at the step tag that follows every step.

    Source: Lightman et al. 2023, section 2.6. A ``neutral`` token in the template makes a third label, which steps
    rated 0 are trained on if ``targets.neutral`` is ``class``. A step's value is P(positive), to which ``neutral`` may
    add P(neutral).

    Args:
        backbone: the generator to start the reward model from; or the export of another reward model, whose label rows
            and template are then taken over too: a second training stage on smaller or better data.
        template: text around problems and steps; None takes the template that the backbone was exported with.
        max_length: longest sequence in tokens; longer solutions are left out as a whole and counted.
        optimizer: builds an optimizer from parameter groups; weight decay applies to matrices only.
        warmup: share of the training steps over which the learning rate rises from 0.
        decay: schedule of the learning rate after warmup: ``cosine``, ``linear`` or ``constant``.
        lm_weight: weight of the language-model loss on ``data.lm``.
        targets: how step labels become targets.
        loss: ``cross_entropy`` of the labels, soft ones too; ``mse``, the squared difference between a step's value and
            its target, for regression on the share of correct rollouts; or another ``StepLoss``: ``StepBinomial``,
            ``StepRanking``, ``SolutionRanking``.
        loss_over: normalize the probabilities in the loss over the ``labels`` only, or over the whole ``vocabulary``,
            as in next-token prediction. Scores compare the labels either way.
        neutral: count P(neutral) in values, and a neutral step in metrics, as ``positive`` or ``negative``, if the
            template has a neutral label. The export records the choice, and scoring may override it. None takes the
            choice of the backbone's export, or ``positive`` (Lightman et al. 2023, section 2.6).
    """

    def __init__(
        self,
        backbone: Backbone,
        template: Template | None = None,
        max_length: int = 1024,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(parameters, lr=1e-5),
        warmup: float = 0.05,
        decay: Decay = "cosine",
        lm_weight: float = 0.0,
        targets: StepTargets = StepTargets(),  # noqa: B008 - frozen
        loss: Literal["cross_entropy", "mse"] | StepLoss = "cross_entropy",
        loss_over: Literal["labels", "vocabulary"] = "labels",
        neutral: Neutral | None = None,
    ) -> None:
        super().__init__(backbone, template, max_length, optimizer, warmup, decay, lm_weight)
        self.targets, self.over_vocabulary = targets, loss_over == "vocabulary"
        named = {"cross_entropy": StepCrossEntropy, "mse": StepMSE}
        self.loss: StepLoss = loss if isinstance(loss, StepLoss) else named[loss]()
        for refused, key in (
            (self.over_vocabulary and not self.loss.takes_vocabulary, "loss_over: vocabulary"),
            (targets.neutral == "class" and not self.loss.takes_neutral, "targets.neutral: class"),
            (targets.monte_carlo != "soft" and self.loss.takes_counts, f"targets.monte_carlo: {targets.monte_carlo}"),
        ):
            if refused:
                raise InputError(f"loss: {type(self.loss).__name__} does not support {key}")
        self.neutral: Neutral = neutral or self.backbone_facts.get("neutral", "positive")
        if targets.neutral == "class" and self.template.neutral is None:
            raise InputError("targets.neutral: class, but template.neutral defines no token for it")
        _ = self.encoder.label_ids  # checks that tag and labels are single tokens, before any data is read

    def encode(self, record: Solution, *, labelled: bool) -> Example:
        """Encode a record with targets at the labelled steps.

        Without labels, to predict, all steps are scored.
        """
        if not labelled:
            return self.encoder.process(record, None)
        targets = self.targets.of(record)
        example = self.encoder.process(record, targets)
        if self.loss.takes_counts:
            pairs = zip(record.step_labels or (), targets, strict=True)
            example.weights = [float((label and label.num_rollouts) or 1) for label, y in pairs if y is not None]
        return example

    def encoding_options(self) -> dict[str, Any]:
        """List what the step labels mean."""
        return {"targets": self.targets, "counts": self.loss.takes_counts}

    def build(self) -> ProcessModel:
        """Load the backbone; its rows of the label tokens are the head."""
        return ProcessModel(
            self.backbone_source.load(self.sharding()), self.encoder.label_ids, self.over_vocabulary, self.neutral
        )

    def build_metrics(self) -> MetricCollection:
        """Build the metrics of steps and first errors.

        F1 takes incorrect steps as the positive class.
        """
        metrics = {
            "step_auroc": AUROC(), "step_accuracy": BinaryAccuracy(), "error_f1": ErrorF1(),
            "ece": CalibrationError(), "first_error_accuracy": FirstErrorAccuracy(),
        }  # fmt: skip
        # With groups, metrics whose counts happen to be equal in the first batch would share their state from then on.
        return MetricCollection(metrics, compute_groups=False)  # type: ignore[arg-type]

    def update_metrics(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Update the metrics with every labelled step.

        A soft target counts as correct from 1/2 on.
        """
        assert self.model is not None
        assert batch.scored.targets is not None
        entries = batch.scored.entries
        correct = (self.truth(batch.scored.targets)[entries] >= 0.5).long()
        metrics.update(self.model.values(outputs)[entries], correct, owner=batch.scored.owner)

    def verdicts(self, example: Example) -> list[bool]:
        """Return whether each labelled step is correct."""
        return (self.truth(torch.tensor(example.targets or [])) >= 0.5).tolist()

    def truth(self, targets: Tensor) -> Tensor:
        """Convert targets to probabilities, neutral ones as the values count them."""
        return torch.where(targets == NEUTRAL, float(self.neutral == "positive"), targets)

    def facts(self) -> dict[str, Any]:
        """Return the metadata of an export, with the label ids.

        :class:`stepverify.verifier.Verifier` checks these ids against its tokenizer.
        """
        neutral = {} if self.template.neutral is None else {"neutral": self.neutral}
        return super().facts() | {"ids": self.encoder.judging_ids()} | neutral
