"""Plot calibration and error detection of a verifier after each validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch import Tensor
from torchmetrics.classification import BinaryPrecisionRecallCurve

from stepverify.data.batch import Batch
from stepverify.modules import GeneratorModule, ProcessRewardModel, StepModule
from stepverify.monitoring.media import show_figure, shows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class CalibrationFigure(lightning.Callback):
    """Plot the reliability diagram of a verifier on the validation set.

    It shows the share of correct positions by predicted probability.

    Args:
        num_bins: equal-width bins of the predicted probability.
    """

    def __init__(self, num_bins: int = 15) -> None:
        self.num_bins = num_bins
        self._counts = torch.zeros(3, num_bins)

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Reset the counts."""
        self._counts = torch.zeros(3, self.num_bins)

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Batch,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Count values and targets per bin."""
        targets, entries = batch.scored.targets, batch.scored.entries
        if isinstance(pl_module, GeneratorModule) or targets is None:
            return
        assert isinstance(pl_module, StepModule)
        self._add(outputs[entries].float().cpu(), pl_module.truth(targets)[entries].float().cpu())

    def _add(self, values: Tensor, targets: Tensor) -> None:
        bins = (values * self.num_bins).long().clamp(0, self.num_bins - 1)
        for row, weight in enumerate((torch.ones_like(values), values, targets)):
            self._counts[row].index_add_(0, bins, weight)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Plot the counts of all processes."""
        counts = trainer.strategy.reduce(self._counts.to(pl_module.device), reduce_op="sum")
        count, predicted, observed = counts.cpu()
        if not shows(trainer) or trainer.sanity_checking or not count.any():
            return
        used = count > 0
        figure, axes = _square("predicted probability of being correct", "share that is correct")
        axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfect")
        sizes = 20 + 300 * (count[used] / count.sum()).numpy()
        axes.plot((predicted / count)[used], (observed / count)[used], color="#0072B2")
        axes.scatter(
            (predicted / count)[used],
            (observed / count)[used],
            s=sizes,
            color="#0072B2",
            label="area: share of positions",
        )
        figure.legend(loc="outside upper center")  # where it covers no data
        show_figure(trainer, "calibration", figure)


class PrecisionRecallCurve(lightning.Callback):
    """Plot precision against recall of detecting incorrect steps.

    For process reward models, on the validation set.
    """

    def __init__(self) -> None:
        self._curve = BinaryPrecisionRecallCurve()  # gathers the steps of all processes

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Reset the curve."""
        self._curve = BinaryPrecisionRecallCurve().to(pl_module.device)

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Batch,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Add the labelled steps.

        A soft target counts as correct from 1/2 on.
        """
        targets, entries = batch.scored.targets, batch.scored.entries
        if isinstance(pl_module, ProcessRewardModel) and targets is not None:
            self._curve.update(1 - outputs[entries].float(), (pl_module.truth(targets)[entries] < 0.5).long())

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Plot the curve."""
        if not isinstance(pl_module, ProcessRewardModel) or trainer.sanity_checking:
            return
        precision, recall, thresholds = (x.cpu() for x in self._curve.compute())
        if shows(trainer) and recall[0] > 0:  # undefined without incorrect steps
            show_figure(trainer, "precision_recall_curve", precision_recall_figure(precision, recall, thresholds))


def precision_recall_figure(precision: Tensor, recall: Tensor, thresholds: Tensor) -> Figure:
    """Plot precision against recall of detecting incorrect steps.

    A point marks the threshold 1/2.

    Args:
        precision: (K + 1,), a step is predicted incorrect if P(incorrect) >= threshold; the final entry, at recall 0,
            is 1.
        recall: (K + 1,), from 1 to 0.
        thresholds: (K,) ascending.
    """
    figure, axes = _square("recall of the incorrect steps", "precision: share of predicted ones that are incorrect")
    axes.step(recall, precision, where="post", color="#0072B2")
    base = float(precision[0])
    axes.axhline(base, color="0.6", linestyle="--", label=f"all predicted incorrect: {base:.2f}")
    half = int((thresholds <= 0.5).sum())  # a value of exactly 1/2 is not predicted incorrect
    if half < len(thresholds):
        p, r = float(precision[half]), float(recall[half])
        f1 = 2 * p * r / max(p + r, 1e-9)
        axes.scatter([r], [p], s=60, color="#D55E00", zorder=3, label=f"value below 1/2: F1 {f1:.2f}")
    figure.legend(loc="outside upper center")
    return figure


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    """Create a figure with both axes from 0 to 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    return figure, figure.add_subplot(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))
