"""Show solutions with labels and values after each validation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import lightning
import torch

from stepverify.aggregate import deepest_fall
from stepverify.data.batch import Batch
from stepverify.modules import GeneratorModule, GradedModule, StepModule
from stepverify.monitoring.media import Row, show_figure, show_table, shows
from stepverify.records import Solution, StepLabel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_JUDGED = ("solution", "problem", "step", "text", "label", "value", "correct")
_GENERATED = ("problem_id", "problem", "solution", "answer")


class SolutionText(lightning.Callback):
    """Show solutions of the first validation batch after each validation.

    A generator samples them greedily; a verifier shows each step with its label and value, in TensorBoard as text, in
    other loggers as a table. One that scores every token shows the value after each step, and a figure with all values
    as colours.

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
        """Show the solutions of the first batch."""
        # A single rank cannot run a sharded model.
        if batch_idx or not shows(trainer) or trainer.sanity_checking or pl_module.device_mesh is not None:
            return
        assert isinstance(pl_module, StepModule)
        assert pl_module.model is not None
        if isinstance(pl_module, GeneratorModule):
            records = batch.records[: self.num_solutions]
            samples = self._generated(pl_module, records)
            rows: list[Row] = [(r.problem_id, r.problem, s, r.answer) for r, s in zip(records, samples, strict=True)]
            texts = [f"{row[1]}\n\n{row[2]}\n(reference answer: {row[3]})" for row in rows]
            show_table(trainer, "solution", _GENERATED, rows, texts)
            return
        rows, texts = [], []
        judged = list(zip(batch.records, batch.split(outputs), strict=True))[: self.num_solutions]
        for i, (record, values) in enumerate(judged):
            pieces = pl_module.encoder.token_texts(record) if isinstance(pl_module, GradedModule) else []
            of_steps: Sequence[float | None] = values
            if len(pieces) == len(values):  # a value after every token
                visible = [(piece, value) for piece, value in zip(pieces, values, strict=True) if piece]
                of_steps = _after_steps(visible, pl_module.encoder.texts(record))
                show_figure(trainer, f"solution/{i}", token_figure(visible))
            elif len(values) != len(record.steps):  # the final value alone
                of_steps = [*[None] * (len(record.steps) - 1), *values[-1:]]
            steps = _rows(record, of_steps)
            rows += steps
            texts.append(_text(record, steps))
        show_table(trainer, "solution", _JUDGED, rows, texts)

    def _generated(self, module: GeneratorModule, records: Sequence[Solution]) -> list[str]:
        """Return greedy solutions, sampled together."""
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
        return tokenizer.batch_decode(sampled[:, longest:], skip_special_tokens=True)


def _rows(record: Solution, values: Sequence[float | None]) -> list[Row]:
    """Return a row for each step, with its label as a probability or rating."""
    correct = {True: "correct", False: "incorrect", None: None}[record.correct]
    labels = record.step_labels or [None] * len(record.steps)
    return [
        (record.id, record.problem, i, step, _number(label), value, correct)
        for i, (step, label, value) in enumerate(zip(record.steps, labels, values, strict=True), start=1)
    ]


def _number(label: StepLabel | None) -> float | None:
    if label is None:
        return None
    return label.share if label.rating is None else float(label.rating)


def _text(record: Solution, rows: Sequence[Row]) -> str:
    """Return a solution, each step behind its value and label."""
    lines = []
    for _, _, _, step, label, value, _ in rows:
        lines.append(" ".join(" " * 6 if x is None else f"{x:6.3f}" for x in (value, label)) + f"  {step}")
    header = f"{'value':>6} {'label':>6}"
    return f"{record.problem}\n\n{header}\n" + "\n".join(lines) + f"\n(correct: {record.correct})"


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
