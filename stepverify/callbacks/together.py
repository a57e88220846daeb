"""Make decisions on all ranks together.

A rank that stops by itself leaves the others waiting for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor

from stepverify.records import InputError


def any_rank(trainer: lightning.Trainer, *wishes: bool | Tensor) -> list[bool]:
    """Check for each flag whether any rank has it set.

    With one process the device is synchronized only if a flag is a tensor.
    """
    if trainer.world_size == 1 and not any(isinstance(wish, Tensor) for wish in wishes):
        return [bool(wish) for wish in wishes]
    votes = torch.stack([torch.as_tensor(wish, device=trainer.strategy.root_device).int() for wish in wishes])
    if trainer.world_size > 1:
        votes = trainer.strategy.reduce(votes, reduce_op="sum")
    return [bool(count) for count in votes.tolist()]


@contextmanager
def together(trainer: lightning.Trainer) -> Iterator[None]:
    """Fail on all ranks if the block fails on any.

    Rank 0 reports the reason.

    Raises:
        InputError: on rank 0, if another rank has failed.
        SystemExit: on the other ranks.
    """
    if trainer.world_size == 1:
        yield
        return
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    reason = None if error is None else str(error)
    found = [trainer.strategy.broadcast(reason, src=rank) for rank in range(trainer.world_size)]
    if not any(r is not None for r in found):
        return
    if trainer.is_global_zero:
        raise error or InputError("; ".join(dict.fromkeys(r for r in found if r is not None)))
    raise SystemExit(exit_code(trainer, 2)) from error


def exit_code(trainer: lightning.Trainer, code: int) -> int:
    """Choose a rank's exit code.

    Lightning kills rank 0 if a process that it started ends with a code other than 0.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return 0 if isinstance(environment, LightningEnvironment) and trainer.local_rank else code
