"""Train an outcome verifier (ORM).

It predicts the probability that a solution's final answer is correct.
"""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy

from stepverify.data.batch import Batch
from stepverify.data.encode import Example
from stepverify.data.targets import StepTargets
from stepverify.losses import BetweenSolutions, OutcomeBCE, OutcomeLoss, OutcomeMSE
from stepverify.metrics import AUROC, CalibrationError, GroupedAUROC, PlattScaling
from stepverify.models import Backbone, OutcomeModel
from stepverify.models.export import load_value_head
from stepverify.modules.base import StepModule
from stepverify.modules.optimization import Decay
from stepverify.records import InputError, Solution
from stepverify.template import Template


class OutcomeVerifier(StepModule):
    """Train a token-level value head on a language model.

    Source: Cobbe et al. 2021, section 4.2.

    Args:
        backbone: the generator to start the verifier from.
        template: text around problems and steps; None takes the template that the backbone was exported with.
        max_length: longest sequence in tokens; longer solutions are left out as a whole and counted.
        optimizer: builds an optimizer from parameter groups; weight decay applies to matrices only.
        warmup: share of the training steps over which the learning rate rises from 0.
        decay: schedule of the learning rate after warmup: ``cosine``, ``linear`` or ``constant``.
        lm_weight: weight of the language-model loss on ``data.lm`` (the paper's is 1).
        loss: ``mse`` (the paper's) or ``bce`` between value and target; or another ``OutcomeLoss``: ``OutcomeRanking``.
        per_token: train on every solution token (as in the paper), or on the final token only.
        head: how the value's logit is computed: ``reserved`` applies a gain and a bias to the logit of the template's
            step tag, a token that no solution contains (as in the paper); ``linear`` adds a layer of its own. With LoRA
            the tag's row of the output matrix is frozen.
        target: the solution's ``outcome`` at all of its tokens, or ``rollouts``, the share of correct rollouts from the
            end of the step that a token belongs to (needs step labels).
        label_smoothing: s, by which a target y becomes (1 - s) · y + s / 2.
        calibrate: after each validation of a fit, set a gain and a bias of the value's logit by the values at the final
            tokens, so that values are probabilities there (Platt 1999). Neither training nor the ranking of solutions
            changes. It corrects how far values lie apart, which weighted votes depend on, and how high they are, which
            ``balance`` and ``class_weights`` shift, for solutions like those of the validation.
        predict_every_token: let ``predict`` write the value at every token instead of the final one.
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
        loss: Literal["mse", "bce"] | OutcomeLoss = "mse",
        per_token: bool = True,
        head: Literal["reserved", "linear"] = "reserved",
        target: Literal["outcome", "rollouts"] = "outcome",
        label_smoothing: float = 0.0,
        calibrate: bool = True,
        predict_every_token: bool = False,
    ) -> None:
        super().__init__(backbone, template, max_length, optimizer, warmup, decay, lm_weight)
        if not 0.0 <= label_smoothing < 1.0:
            raise InputError(f"label_smoothing: expected 0 <= s < 1, got {label_smoothing}")
        self.loss = loss if isinstance(loss, OutcomeLoss) else {"mse": OutcomeMSE, "bce": OutcomeBCE}[loss]()
        if isinstance(self.loss, BetweenSolutions):
            for wrong, key in (
                (per_token, "per_token: true"),
                (label_smoothing, f"label_smoothing: {label_smoothing}"),
            ):
                if wrong:
                    raise InputError(
                        f"loss: {type(self.loss).__name__} compares the final tokens of solutions and does not support "
                        f"{key}; set {key.partition(':')[0]} to {'false' if key[0] == 'p' else 0}"
                    )
        self.per_token, self.predict_every_token = per_token, predict_every_token
        self.target, self.label_smoothing = target, label_smoothing
        self.calibrate, self.platt = calibrate, PlattScaling()
        self.reserved = self.encoder.step_tag_id if head == "reserved" else None  # checked before data is read

    def encode(self, record: Solution, *, labelled: bool) -> Example:
        """Encode a record with outcome or rollout targets at solution tokens."""
        if not labelled:
            return self.encoder.outcome(record, None, last_only=not self.predict_every_token)
        return self.encoder.outcome(record, self._targets(record), last_only=not self.per_token)

    def _targets(self, record: Solution) -> list[float | None]:
        """Return one target per step; None where it is unknown."""
        known: list[float | None]
        if self.target == "rollouts":
            known = StepTargets(monte_carlo="soft").of(record)
        elif record.correct is None:
            raise InputError(f"solution {record.id}: no outcome label ('correct'); run sampling label first")
        else:
            known = [float(record.correct)] * len(record.steps)
        s = self.label_smoothing
        return [None if y is None else (1 - s) * y + s / 2 for y in known]

    def encoding_options(self) -> dict[str, Any]:
        """List which tokens are read, and for what target."""
        names = ("per_token", "predict_every_token", "target", "label_smoothing")
        return {name: getattr(self, name) for name in names}

    def build(self) -> OutcomeModel:
        """Load the backbone and add a value head that starts at 1/2."""
        source = self.backbone_source
        model = OutcomeModel(source.load(self.sharding()), self.reserved, load_value_head(source.folder))
        model.start_undecided(self.encoder.probe())
        return model

    def facts(self) -> dict[str, Any]:
        """Return the metadata of an export, with ``per_token``.

        If it is False, values before the final token mean nothing.
        """
        return super().facts() | {"per_token": self.per_token}

    def build_metrics(self) -> MetricCollection:
        """Build the metrics of final-token values, over all solutions and per problem."""
        return MetricCollection({
            "solution_auroc": AUROC(), "solution_auroc_per_problem": GroupedAUROC(),
            "solution_accuracy": BinaryAccuracy(), "ece": CalibrationError(),
        })  # fmt: skip

    def update_metrics(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Update the metrics with the final value of each solution."""
        assert self.model is not None
        assert batch.scored.targets is not None
        last = batch.last()
        names, correct = [record.problem_id for record in batch.records], (batch.scored.targets[last] >= 0.5).long()
        metrics.update(self.model.values(outputs)[last], target=correct, names=names)
        if self._calibrates():
            self.platt.update(outputs[last], correct)

    def verdicts(self, example: Example) -> list[bool]:
        """Return whether the solution is correct."""
        return [(example.targets or [0.0])[-1] >= 0.5]

    def val_names(self) -> set[str]:
        """Return the names of the logged metrics, with the ECE after calibration."""
        return super().val_names() | ({"val/ece_calibrated"} if self.calibrate else set())

    def _calibrates(self) -> bool:
        return self.calibrate and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking

    def on_validation_epoch_start(self) -> None:
        """Remove the scaling, so that metrics measure uncalibrated values."""
        if self._calibrates():
            cast(OutcomeModel, self.model).scale()
            self.platt.reset()

    def on_validation_epoch_end(self) -> None:
        """Calibrate the values; checkpoints and export hold the scaling."""
        if self._calibrates():
            gain, bias, error = self.platt.compute().tolist()
            if not math.isnan(gain):
                cast(OutcomeModel, self.model).scale(gain, bias)
            self.log("val/ece_calibrated", error, sync_dist=True)

    def on_train_end(self) -> None:
        """Warn if the values could not be calibrated."""
        if self.calibrate and cast(OutcomeModel, self.model).scaling.tolist() == [1.0, 0.0]:
            why = "no validation ended, or higher values were not more often correct in it"
            rank_zero_warn(f"values are exported as trained, not calibrated: {why}")
