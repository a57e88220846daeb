"""Compute the disk space of checkpoints and export before training."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from stepverify.callbacks import files
from stepverify.callbacks.checkpoints import Checkpoints
from stepverify.callbacks.export import HuggingFaceExport
from stepverify.modules import StepModule
from stepverify.records import InputError

_PER_TENSOR = 360  # overhead in bytes: names in the zip archive, and alignment


@dataclass(frozen=True, slots=True)
class Room:
    """Hold the bytes of one checkpoint and of the exported models.

    A checkpoint has the trained weights and the optimizer state; ``optimizer`` is None if its size is unknown before
    the first step.
    """

    weights: int
    optimizer: int | None
    exports: int

    @property
    def checkpoint(self) -> int:
        """Return the bytes of weights and optimizer state."""
        return self.weights + (self.optimizer or 0)


def measure(trainer: lightning.Trainer, module: StepModule) -> Room:
    """Compute the bytes that will be written, before any step."""
    state = [value for value in module.state_dict().values() if isinstance(value, Tensor)]
    callbacks: list[lightning.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    exports = sum(len(c._forms) for c in callbacks if isinstance(c, HuggingFaceExport))
    return Room(_bytes(state), _optimizer_bytes(trainer, module), exports * _bytes(module.parameters()))


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Count the bytes of tensors: sharded ones in full, tied ones once."""
    found: dict[Any, int] = {}
    for tensor in tensors:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        key = (local.untyped_storage().data_ptr(), local.storage_offset())
        found[key] = tensor.numel() * tensor.element_size() + _PER_TENSOR
    return sum(found.values())


def _optimizer_bytes(trainer: lightning.Trainer, module: StepModule) -> int | None:
    """Count the bytes of optimizer states.

    The optimizer takes a step on parameters without storage.
    """
    total = 0
    for shapes in (group["params"] for optimizer in trainer.optimizers for group in optimizer.param_groups):
        weights = [torch.empty(p.shape, dtype=p.dtype, device="meta", requires_grad=True) for p in shapes]
        optimizer = module.optimization.factory([{"params": weights}])
        # Fused kernels do not support meta tensors; their states are the same.
        optimizer.param_groups[0].update({k: False for k in ("fused", "foreach") if k in optimizer.param_groups[0]})
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        try:
            optimizer.step()
        except Exception:  # Adafactor reads a value, but after creating all states
            if not all(optimizer.state.get(weight) for weight in weights):
                return None
        states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
        total += sum(value.numel() * value.element_size() + _PER_TENSOR for value in states)
    return total


def check(trainer: lightning.Trainer, module: StepModule, *, freed: int = 0) -> None:
    """Print the size of a checkpoint and of the run.

    Args:
        trainer: with its callbacks; on its first rank.
        module: with its model loaded.
        freed: bytes of an earlier run that this one removes.

    Raises:
        InputError: the disk has less space.
    """
    kept = next((c for c in trainer.callbacks if isinstance(c, Checkpoints)), None)  # type: ignore[attr-defined]
    if kept is None:
        return
    root, room = Path(trainer.default_root_dir), measure(trainer, module)
    best = kept.choice.monitor is not None
    count = kept.keep + best + 1
    there = files.size(files.folder(root)) if files.folder(root).is_dir() else 0
    free = shutil.disk_usage(next(p for p in (root, *root.resolve().parents) if p.exists())).free + freed + there
    needed = count * room.checkpoint + room.exports
    parts = f"{kept.keep} kept, {'the best one, ' if best else ''}one that is being written"
    state = "unknown before the first step" if room.optimizer is None else _gb(room.optimizer)
    copy = f"; {_gb(room.checkpoint)} of host memory while one is written" if kept.async_save else ""
    files.say(
        f"a checkpoint takes {_gb(room.checkpoint)} (weights {_gb(room.weights)}, optimizer state {state}); at most "
        f"{count} at once ({parts}) and the export take {_gb(needed)} of {_gb(free)} on the disk{copy}"
    )
    if needed > free:
        raise InputError(
            f"{root}: checkpoints and export take up to {_gb(needed)}, {_gb(free)} are free: lower Checkpoints.keep "
            f"({kept.keep}), or choose a trainer.default_root_dir on another disk"
        )


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
