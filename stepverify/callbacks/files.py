"""Find checkpoints on disk, check them for damage, and read them safely.

A checkpoint is a file or a folder of shards; reading never runs pickled code.
"""

from __future__ import annotations

import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from stepverify import atomic
from stepverify.records import InputError


def folder(root: str | Path) -> Path:
    """Return the folder of a run's checkpoints."""
    return Path(root) / "checkpoints"


def name(step: int) -> str:
    """Return the name of the checkpoint after a step."""
    return f"step={step}.ckpt"


def find(root: str | Path) -> list[Path]:
    """Find all checkpoints of a run, newest first.

    Includes SLURM's, which Lightning writes to the root.
    """
    found = {path.resolve() for path in [*folder(root).glob("*.ckpt"), *Path(root).glob("hpc_ckpt_*.ckpt")]}
    return sorted(found, key=lambda path: path.stat().st_mtime_ns if path.exists() else 0, reverse=True)


def last(root: str | Path) -> Path | None:
    """Return the newest undamaged checkpoint of a run; None without checkpoints.

    Raises:
        InputError: all checkpoints are damaged.
    """
    torn: list[str] = []
    for path in find(root):
        reason = defect(path)
        if reason is None:
            if torn:
                say(f"{', '.join(torn)}: resuming from {path} instead")
            return path
        torn.append(f"{path} is torn ({reason})")
    if torn:
        raise InputError(f"{', '.join(torn)}; there is no other checkpoint: remove {folder(root)} to start over")
    return None


def defect(path: Path) -> str | None:
    """Describe the damage of a checkpoint; None if it is complete."""
    try:
        if path.is_dir():
            with (path / ".metadata").open("rb") as file:
                stored = _Metadata(file).load().storage_data.values()
            for name in {info.relative_path for info in stored}:
                expected = max(info.offset + info.length for info in stored if info.relative_path == name)
                if (size := (path / name).stat().st_size) != expected:
                    return f"{name} has {size} of {expected} bytes"
            path = path / "meta.pt"
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except Exception as error:  # damaged files raise all kinds of errors
        return str(error) or type(error).__name__
    return f"wrong checksum of {bad}" if bad else None


class _Metadata(pickle.Unpickler):
    """Unpickle the ``.metadata`` of a sharded checkpoint; refuse other classes."""

    _KNOWN = frozenset({
        *(("torch.distributed.checkpoint.metadata", name) for name in (
            "Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata", "BytesStorageMetadata",
            "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING",
        )),
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"), ("torch.serialization", "_get_layout"),
        ("torch", "Size"), ("pathlib", "PosixPath"), ("pathlib._local", "PosixPath"),
    })  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._KNOWN or (module == "torch" and isinstance(getattr(torch, name, 0), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")


def read_without_optimizer(path: Path) -> dict[str, Any]:
    """Read a checkpoint without the states of optimizers and schedules."""
    if path.is_file():
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    else:
        checkpoint = torch.load(path / "meta.pt", weights_only=True)
        checkpoint |= _read_shards(path, lambda name: name.startswith("state_dict."))
    return {key: value for key, value in checkpoint.items() if key not in ("optimizer_states", "lr_schedulers")}


def is_weights_only(path: Path) -> bool:
    """Check whether a checkpoint has no optimizer state.

    Training cannot resume from it.
    """
    return path.is_file() and "optimizer_states" not in torch.load(
        path, map_location="cpu", weights_only=True, mmap=True
    )


def size(path: Path) -> int:
    """Count the bytes of a file or of a folder's files.

    Links are not followed.
    """
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())


def _read_shards(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[Any, Any]:
    """Merge the shards of a folder in this process.

    Lists become dicts by index.
    """
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = FileSystemReader(path)
    metadata = reader.read_metadata()
    held: dict[str, Any] = {
        name: torch.empty(info.size, dtype=info.properties.dtype) if isinstance(info, TensorStorageMetadata) else None
        for name, info in metadata.state_dict_metadata.items() if wanted(name)
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # intended by no_dist
        load(held, storage_reader=reader, no_dist=True)
    tree: dict[Any, Any] = {}
    for name, value in held.items():
        node, (*keys, last) = tree, metadata.planner_data[name]
        for key in keys:
            node = node.setdefault(key, {})
        node[last] = value
    return tree


class AnyCheckpoint(TorchCheckpointIO):
    """Read checkpoint files and FSDP2's folders of shards; write files atomically.

    For strategies that hold whole parameters.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a file completely or not at all, straight to disk.

        Lightning would first build it in memory, twice.
        """
        with atomic.replacing(path) as draft, draft.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint file, or a folder of shards in its form."""
        if not Path(path).is_dir():
            return super().load_checkpoint(path, *args, **kwargs)
        shards = _read_shards(Path(path))
        checkpoint: dict[str, Any] = torch.load(Path(path) / "meta.pt", weights_only=True)
        optimizers = [shards[f"optimizer_{i}"] for i in range(len(shards)) if f"optimizer_{i}" in shards]
        return checkpoint | {
            "state_dict": shards["state_dict"],
            "optimizer_states": [
                {"state": o.get("state", {}), "param_groups": [*o["param_groups"].values()]} for o in optimizers
            ],
        }


@rank_zero_only
def say(message: str) -> None:
    """Print a message on stderr, from one process."""
    print(f"stepverify: {message}", file=sys.stderr, flush=True)
