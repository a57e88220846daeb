"""Detect optimizer steps that 16-bit weights round away."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.distributed.tensor import DTensor

from stepverify.records import InputError

# Of bfloat16 weights with a standard deviation of 0.02, AdamW's first step moves 16 % at a learning rate of 1e-5, 88 %
# at 1e-4 and all at 1e-3; later steps are smaller, and move 3 %, 29 % and 86 %.
_REFUSED, _WARNED = 0.5, 0.99


def check_steps(optimizer: torch.optim.Optimizer, trainer: lightning.Trainer) -> None:
    """Refuse 16-bit weights of which most do not move in a step.

    A weight moves if adding the learning rate changes it: the size of AdamW's first and largest step. Optimizers of
    packages other than torch may keep 32-bit copies of the weights, and are not checked.

    Raises:
        InputError: fewer than half of the trained weights move.
    """
    groups = [g for g in optimizer.param_groups if g["lr"]]
    trained = [(p, float(g["lr"])) for g in groups for p in g["params"] if p.dtype in (torch.bfloat16, torch.float16)]
    if not trained or not type(optimizer).__module__.startswith("torch.optim"):
        return
    counts: Any = torch.stack([_count(p.detach(), lr) for p, lr in trained]).sum(0)
    if trainer.world_size > 1:
        counts = trainer.strategy.reduce(counts, reduce_op="sum")
    if (share := (counts[0] / counts[1]).item()) >= _WARNED:
        return
    said = (
        f"trained weights are in {str(trained[0][0].dtype).removeprefix('torch.')}: a step of the learning rate "
        f"{trained[0][1]:g} moves {share:.0%} of them, the others are rounded back; set backbone.dtype: float32 with "
        "trainer.precision: bf16-mixed, or an optimizer that keeps float32 weights"
    )
    if share < _REFUSED:
        raise InputError(said)
    rank_zero_warn(said)


def _count(weight: Tensor, lr: float) -> Tensor:
    """Count this process's weights that move, and all of them; shape (2,)."""
    local = weight.to_local() if isinstance(weight, DTensor) else weight
    moved = (local + lr != local).sum(dtype=torch.float64)
    return torch.stack([moved, torch.full_like(moved, local.numel())])
