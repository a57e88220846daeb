"""Load a checkpoint's weights into the trained model in place."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor

from stepverify.callbacks.best import Best, chosen
from stepverify.callbacks.together import any_rank, together

_PREFIX = "model."


def take_best(trainer: lightning.Trainer, model: nn.Module) -> Best | None:
    """Load the best checkpoint, if chosen, into all ranks' models."""
    found: tuple[Best, Path] | None = None
    with together(trainer):
        if trainer.is_global_zero:
            found = chosen(trainer)
    found = trainer.strategy.broadcast(found)
    if found is None:
        return None
    read_weights(trainer, model, found[1])
    return found[0]


@torch.no_grad()
def read_weights(trainer: lightning.Trainer, model: nn.Module, path: Path) -> None:
    """Load a checkpoint's weights into the model.

    A LoRA checkpoint holds the adapters only.

    Rank 0 reads a file and broadcasts it tensor by tensor. From a folder of shards, each rank of a sharded model reads
    its own; rank 0 reads all for an unsharded model. At most one tensor is held besides the model.

    Args:
        trainer: trainer of the run.
        model: its tensors are overwritten.
        path: a complete checkpoint.
    """
    held: Mapping[str, Any] = model.state_dict()
    is_sharded = any(isinstance(tensor, DTensor) for tensor in held.values())
    if is_sharded and trainer.strategy.broadcast(path.is_dir()) and not any_rank(trainer, not path.is_dir())[0]:
        with together(trainer):
            _read_shards(path, held, alone=False)
        return
    stored: Mapping[str, Tensor] = {}
    with together(trainer):
        if trainer.is_global_zero and path.is_dir():
            whole = {name: torch.empty(t.shape, dtype=t.dtype) if is_sharded else t for name, t in held.items()}
            stored = _read_shards(path, whole, alone=True)
        elif trainer.is_global_zero:
            file = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
            stored = {name: file[_PREFIX + name] for name in held if _PREFIX + name in file}
    names: list[str] = trainer.strategy.broadcast([*stored])
    several = trainer.world_size > 1
    for name in names:
        tensor = held[name]
        if several:
            device = trainer.strategy.root_device
            whole_one = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            if trainer.is_global_zero:
                whole_one.copy_(stored[name])
            torch.distributed.broadcast(whole_one, 0)
        else:
            whole_one = stored[name]
        if isinstance(tensor, DTensor):
            local = tensor.to_local()
            step = -(-tensor.shape[0] // tensor.device_mesh.size())
            start = min(tensor.device_mesh.get_local_rank() * step, tensor.shape[0])
            local.copy_(whole_one[start : start + len(local)])
        else:
            tensor.copy_(whole_one)


def _read_shards(path: Path, into: Mapping[str, Any], *, alone: bool) -> Mapping[str, Any]:
    """Read the tensors that a folder of shards has, in place."""
    reader = FileSystemReader(path)
    known = reader.read_metadata().state_dict_metadata
    names = [name for name in into if f"state_dict.{_PREFIX}{name}" in known]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # intended by no_dist
        load({"state_dict": {_PREFIX + name: into[name] for name in names}}, storage_reader=reader, no_dist=alone)
    return {name: into[name] for name in names}
