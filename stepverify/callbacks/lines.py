"""Progress of training as lines, for output that no terminal shows: a job's log file."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn

from stepverify.metrics import NEED_BOTH


class ProgressLines(ProgressBar):
    """Prints how far training is every so often, and what each validation found.

    ``stepverify fit`` takes it where its output is no terminal: a bar is sampled there when all is over. A line is::

        fit: epoch 1 of 2, step 40 of 188, 0:21:10 passed, 1:18:17 left, train/loss 0.446, 52 tokens/s

    The time left goes by the steps of this run, validations among them. Tokens are those computed, by
    :class:`~stepverify.callbacks.Throughput`.

    Args:
        seconds: between two lines, at least.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._enabled = True

    def disable(self) -> None:
        """Print nothing; so on all processes but the first."""
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
        """Say where training is, if it is time to."""
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
        """Say what validation found."""
        found = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if self._enabled and found and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            values = ", ".join(f"{name} {shown(name, float(value))}" for name, value in found.items())
            print(f"validate: step {trainer.global_step}, {values}", flush=True)


def shown(name: str, value: float) -> str:
    """A metric's value as people read it; that of a comparison without both kinds is undefined."""
    return "undefined" if math.isnan(value) and name.removeprefix("val/") in NEED_BOTH else f"{value:.4g}"


def _clock(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))
