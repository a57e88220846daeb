"""Stop training at the first loss or gradient that is not finite."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from stepverify.callbacks.together import any_rank, together
from stepverify.records import InputError

_SHOWN = 16


class StopAtNonFinite(lightning.Callback):
    """Stop before the first step whose loss or gradient is not finite.

    Weights and checkpoints stay as they were after the previous step. Infinite gradients with float16 loss scaling do
    not stop training: their step is skipped. Logs ``train/grad_norm``, the norm before clipping, at logged steps.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._seen: list[tuple[Tensor, list[str]]] = []

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the ids of the batch's solutions."""
        self._ids = [record.id for record in batch.records]

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        """Keep the loss, on its device."""
        self._seen.append((loss.detach(), self._ids))

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Check the losses since the last step and their gradient norm.

        All ranks decide together.
        """
        seen, self._seen = self._seen, []
        norm = torch.nn.utils.get_total_norm([p.grad for p in pl_module.parameters() if p.grad is not None])
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        lost = ~torch.stack([loss for loss, _ in seen]).isfinite()
        is_scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        bad_loss, bad_norm = any_rank(trainer, lost.any(), ~norm.isfinite())
        if bad_loss or (bad_norm and not is_scaled):
            with together(trainer):
                ids = [
                    i for (_, batch), bad in zip(seen, lost.tolist(), strict=True) for i in batch if bad or not bad_loss
                ]
                if ids:
                    raise InputError(_message(trainer, norm.item(), ids))
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            pl_module.log("train/grad_norm", norm)


def check_weights(trainer: lightning.Trainer) -> None:
    """Refuse to save weights that are not finite, on all ranks.

    Raises:
        InputError: weights of any rank are not finite.
    """
    trained = [p for p in trainer.lightning_module.parameters() if p.requires_grad]
    local = [p.to_local() if isinstance(p, DTensor) else p for p in trained]
    if any_rank(trainer, ~torch.stack([p.isfinite().all() for p in local]).all())[0]:
        with together(trainer):
            raise InputError(
                f"step {trainer.global_step}: weights are not finite; not saved; resume from the checkpoint before"
            )


def _message(trainer: lightning.Trainer, norm: float, ids: list[str]) -> str:
    loss = trainer.callback_metrics["train/loss"].item()
    shown = ", ".join(ids[:_SHOWN]) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
    return (
        f"stopped before step {trainer.global_step + 1}: loss {loss:.4g}, norm of the gradient {norm:.4g}; "
        f"the batch's solutions: {shown}; weights and checkpoints are those of the step before"
    )
