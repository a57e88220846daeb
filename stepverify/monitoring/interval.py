"""Choose how often a fit logs, by its number of steps."""

from __future__ import annotations

import math

import lightning

_MOST, _POINTS = 10, 20


class LoggingInterval(lightning.Callback):
    """Log every 10 steps; in fits of fewer than 200 steps, 20 times or at every step.

    ``stepverify fit`` uses it if ``trainer.log_every_n_steps`` is not given.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Set the interval, once the number of steps is known."""
        steps = trainer.estimated_stepping_batches
        interval = _MOST if math.isinf(steps) else min(_MOST, max(1, int(steps) // _POINTS))
        trainer.log_every_n_steps = interval  # type: ignore[attr-defined]
