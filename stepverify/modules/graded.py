"""Share outcome labels, metrics and calibration among verifiers of whole solutions."""

from __future__ import annotations

import math
from typing import cast

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy

from stepverify.data.batch import Batch
from stepverify.data.encode import Example
from stepverify.metrics import AUROC, CalibrationError, GroupedAUROC, PlattScaling
from stepverify.models.calibrated import CalibratedModel
from stepverify.modules.base import StepModule
from stepverify.records import InputError, Solution


class GradedModule(StepModule):
    """Provide the base of verifiers that are trained on outcomes of solutions.

    A subclass sets :attr:`calibrate` and :attr:`platt`, and builds a :class:`CalibratedModel`.

    Attributes:
        calibrate: fit gain and bias of the values after each validation of a fit.
        platt: what they are fitted to.
    """

    calibrate: bool
    platt: PlattScaling

    def outcome(self, record: Solution) -> float:
        """Return 1 for a correct solution, else 0.

        Raises:
            InputError: it is not known.
        """
        if record.correct is None:
            raise InputError(f"solution {record.id}: no outcome label ('correct'); run sampling label first")
        return float(record.correct)

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
            cast(CalibratedModel, self.model).scale()
            self.platt.reset()

    def on_validation_epoch_end(self) -> None:
        """Calibrate the values; checkpoints and export hold the scaling."""
        if self._calibrates():
            gain, bias, error = self.platt.compute().tolist()
            if not math.isnan(gain):
                cast(CalibratedModel, self.model).scale(gain, bias)
            self.log("val/ece_calibrated", error, sync_dist=True)

    def on_train_end(self) -> None:
        """Warn if the values could not be calibrated."""
        if self.calibrate and cast(CalibratedModel, self.model).scaling.tolist() == [1.0, 0.0]:
            why = "no validation ended, or higher values were not more often correct in it"
            rank_zero_warn(f"values are exported as trained, not calibrated: {why}")
