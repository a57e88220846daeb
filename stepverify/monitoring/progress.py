"""Print training progress as lines, for job logs and other non-terminals."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn

from stepverify.metrics import shown


class ProgressLines(ProgressBar):
    """Print progress lines at intervals, and the metrics of each validation.

    ``stepverify fit`` uses it if its output is not a terminal, where a progress bar would appear only at the end. A
    line is::

        fit: epoch 1 of 2, step 40 of 188, 0:21:10 passed, 1:18:17 left, train/loss 0.446, 52 tokens/s

    The time left is estimated from the steps of this run, including validations. Tokens are computed tokens, counted by
    :class:`~stepverify.monitoring.Throughput`.

    Args:
        seconds: shortest time between two lines.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._enabled = True

    def disable(self) -> None:
        """Print nothing; Lightning calls it on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Print again."""
        self._enabled = True

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        self._start = self._said = time.monotonic()
        self._first_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print the progress if it is time to."""
        now, step = time.monotonic(), trainer.global_step
        if not self._enabled or now - self._said < self.seconds:
            return
        self._said, passed = now, now - self._start
        steps, epochs = trainer.estimated_stepping_batches, trainer.max_epochs or -1
        parts = [f"epoch {trainer.current_epoch + 1}" + (f" of {epochs}" if epochs > 0 else "")]
        parts += [f"step {step}" + (f" of {steps}" if math.isfinite(steps) else ""), f"{_clock(passed)} passed"]
        if math.isfinite(steps) and step > self._first_step:
            parts.append(f"{_clock(passed * (steps - step) / (step - self._first_step))} left")
        known = trainer.callback_metrics
        if (loss := known.get("train/loss")) is not None:
            parts.append(f"train/loss {float(loss):.4g}")
        if (rate := known.get("throughput/computed_tokens_per_second")) is not None:
            parts.append(f"{float(rate):,.0f} tokens/s")
        print("fit: " + ", ".join(parts), flush=True)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Print the metrics of the validation."""
        found = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if self._enabled and found and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            values = ", ".join(f"{name} {shown(name, float(value))}" for name, value in found.items())
            print(f"validate: step {trainer.global_step}, {values}", flush=True)


def _clock(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))
