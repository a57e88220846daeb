"""Log training speed and memory."""

from __future__ import annotations

import time
from typing import Any

import lightning

from stepverify.data.batch import Batch
from stepverify.memory import peak_bytes
from stepverify.modules import StepModule


class Throughput(lightning.Callback):
    """Log speed and memory every ``log_every_n_steps``, over all devices.

    Counted since the last time:

    - ``throughput/solutions_per_second``,
    - ``throughput/tokens_per_second``: tokens of solutions, each counted in full,
    - ``throughput/computed_tokens_per_second``: tokens that the model computed, with shared prefixes once in prefix
      packs,
    - ``throughput/shared``: share of the tokens that prefix sharing saved,
    - ``throughput/waiting``: share of time between batches, spent waiting for data and saving checkpoints,
    - ``memory/peak_gib``: peak memory of this process's device; on the CPU, of the process.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock.

        A run that resumes within an epoch has no epoch start.
        """
        self._start()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock after validation and set-up."""
        self._start()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Restart the clock, as validation is not training time."""
        self._start()

    def _start(self) -> None:
        self._solutions = self._tokens = self._computed = 0
        self._waited = 0.0
        self._since = self._ended = time.monotonic()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Add the time since the previous batch ended."""
        self._waited += time.monotonic() - self._ended

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Batch,
        batch_idx: int,
    ) -> None:  # fmt: skip
        """Count a batch."""
        self._solutions += len(batch.records)
        self._tokens += batch.num_tokens
        rows = isinstance(pl_module, StepModule) and not pl_module.packs(batch.tree.rows.shape[1])
        self._computed += batch.tree.rows.numel() if rows else len(batch.input_ids)
        self._ended = time.monotonic()
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            seconds = max(self._ended - self._since, 1e-9)
            pl_module.log_dict({
                "throughput/solutions_per_second": trainer.world_size * self._solutions / seconds,
                "throughput/tokens_per_second": trainer.world_size * self._tokens / seconds,
                "throughput/computed_tokens_per_second": trainer.world_size * self._computed / seconds,
                "throughput/shared": 1 - self._computed / self._tokens,
                "throughput/waiting": self._waited / seconds,
                "memory/peak_gib": peak_bytes(pl_module.device) / 2**30,
            })  # fmt: skip
            self._start()
