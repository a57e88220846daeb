"""Plot calibration and error detection, and show solutions, in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch import Tensor
from torchmetrics.classification import BinaryPrecisionRecallCurve

from stepverify.aggregate import deepest_fall
from stepverify.data.batch import Batch
from stepverify.modules import GeneratorModule, GradedModule, ProcessRewardModel, StepModule
from stepverify.records import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def text_writer(trainer: lightning.Trainer) -> Any:
    """Return TensorBoard's writer on the process that logs; None with other loggers."""
    writer = getattr(trainer.logger, "experiment", None)
    return writer if trainer.is_global_zero and hasattr(writer, "add_text") else None


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
        writer = text_writer(trainer)
        if writer is None or trainer.sanity_checking or not count.any():
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
        writer.add_figure("calibration", figure, trainer.global_step)


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
        writer = text_writer(trainer)
        if writer is not None and recall[0] > 0:  # undefined without incorrect steps
            writer.add_figure(
                "precision_recall_curve", precision_recall_figure(precision, recall, thresholds), trainer.global_step
            )


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


class SolutionText(lightning.Callback):
    """Log solutions as text after each validation.

    A generator samples them greedily; a verifier shows them with its values. For one that scores every token, each line
    shows the value after it, and a figure shows all values as colours.

    Args:
        num_solutions: number of solutions, from the first validation batch.
        max_tokens: longest generated solution, in tokens.
    """

    def __init__(self, num_solutions: int = 4, max_tokens: int = 128) -> None:
        self.num_solutions, self.max_tokens = num_solutions, max_tokens

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Batch,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Log the solutions of the first batch."""
        writer = text_writer(trainer)
        # A single rank cannot run a sharded model.
        if batch_idx or writer is None or trainer.sanity_checking or pl_module.device_mesh is not None:
            return
        assert isinstance(pl_module, StepModule)
        assert pl_module.model is not None
        if isinstance(pl_module, GeneratorModule):
            texts = self._generated(pl_module, batch.records[: self.num_solutions])
        else:
            texts = []
            judged = list(zip(batch.records, batch.split(outputs), strict=True))[: self.num_solutions]
            for i, (record, values) in enumerate(judged):
                pieces = pl_module.encoder.token_texts(record) if isinstance(pl_module, GradedModule) else []
                if len(pieces) != len(values):  # step scores, or the final value only
                    texts.append(_judged(record, values))
                    continue
                visible = [(piece, value) for piece, value in zip(pieces, values, strict=True) if piece]
                texts.append(_judged(record, _after_steps(visible, pl_module.encoder.texts(record))))
                writer.add_figure(f"solution/{i}", token_figure(visible), trainer.global_step)
        for i, text in enumerate(texts):
            writer.add_text(f"solution/{i}", text, trainer.global_step)

    def _generated(self, module: GeneratorModule, records: Sequence[Solution]) -> list[str]:
        """Return problems and greedy solutions, sampled together."""
        assert module.model is not None
        tokenizer = module.encoder.tokenizer
        prompts = [module.encoder.prompt(record.problem) for record in records]
        longest, pad = max(map(len, prompts), default=0), tokenizer.pad_token_id or module.encoder.end_id
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=module.device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=module.device)
        with torch.autocast(module.device.type, enabled=False):
            sampled = module.model.generate(
                inputs=ids, attention_mask=mask, do_sample=False, max_new_tokens=self.max_tokens, pad_token_id=pad
            )
        texts = tokenizer.batch_decode(sampled[:, longest:], skip_special_tokens=True)
        return [
            block(f"{record.problem}\n\n{text}\n(reference answer: {record.answer})")
            for record, text in zip(records, texts, strict=True)
        ]


def _after_steps(visible: Sequence[tuple[str, float]], texts: Sequence[str]) -> list[float]:
    """Return the value after the final token of each step's text."""
    ends = list(accumulate(len(piece) for piece, _ in visible))
    return [visible[ends.index(end)][1] for end in accumulate(map(len, texts))]


def token_figure(visible: Sequence[tuple[str, float]], width: int = 90) -> Figure:
    """Plot token texts on the colours of their values.

    Colours go from orange (0) through white to blue (1); ▼ marks the largest drop.

    Args:
        visible: text and value in [0, 1] of each token.
        width: characters per line.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    colours = LinearSegmentedColormap.from_list("values", ["#e69055", "#ffffff", "#5aa7d6"])
    fall = deepest_fall([value for _, value in visible])
    boxes, column, line = [], 0, 0
    for i, (piece, value) in enumerate(visible):
        text = ("▼" if i == fall else "") + piece.replace("\n", "↵")
        if column and column + len(text) > width:
            column, line = 0, line + 1
        boxes.append((column, line, text, value))
        column += len(text)
        if "\n" in piece:
            column, line = 0, line + 1
    figure = Figure(figsize=(0.078 * width + 1, 0.26 * (line + 2) + 0.5), layout="constrained")
    axes = figure.add_subplot(xlim=(0, width), ylim=(line + 1.5, -0.5))
    axes.set_axis_off()
    for column, line, text, value in boxes:
        axes.add_patch(Rectangle((column, line - 0.45), len(text), 0.9, color=colours(value), linewidth=0))
        axes.text(column, line, text, family="monospace", fontsize=9, va="center", color="black", parse_math=False)
    figure.colorbar(ScalarMappable(Normalize(0, 1), colours), ax=axes, shrink=0.8, label="value")
    return figure


def _judged(record: Solution, values: list[float]) -> str:
    shown = values if len(values) == len(record.steps) else [None] * (len(record.steps) - 1) + values[-1:]
    lines = [f"{'      ' if v is None else f'{v:6.3f}'}  {step}" for v, step in zip(shown, record.steps, strict=True)]
    return block(f"{record.problem}\n\n" + "\n".join(lines) + f"\n(correct: {record.correct})")


def block(text: str) -> str:
    """Indent text so that TensorBoard shows it verbatim."""
    # Markdown shows lines with four leading spaces verbatim.
    return "\n".join("    " + line for line in text.splitlines())
