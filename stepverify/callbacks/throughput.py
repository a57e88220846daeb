"""How fast training goes."""

from __future__ import annotations

import time
from typing import Any

import lightning

from stepverify.data.batch import Batch


class Throughput(lightning.Callback):
    """Logs ``throughput/tokens_per_second`` (without padding, all devices) and ``throughput/padding_share``."""

    def __init__(self) -> None:
        self._tokens = self._slots = 0
        self._since = 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock behind validation and set-up."""
        self._tokens, self._slots, self._since = 0, 0, time.monotonic()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count a batch; log every ``log_every_n_steps``."""
        self._tokens += int(batch.attention_mask.sum())
        self._slots += batch.attention_mask.numel()
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            seconds = time.monotonic() - self._since
            pl_module.log_dict({
                "throughput/tokens_per_second": trainer.world_size * self._tokens / max(seconds, 1e-9),
                "throughput/padding_share": 1 - self._tokens / self._slots,
            })  # fmt: skip
            self._tokens, self._slots, self._since = 0, 0, time.monotonic()
