"""Checkpoints on disk, files or folders of shards: found, checked for damage, read as data alone."""

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
    """Where a run's checkpoints lie."""
    return Path(root) / "checkpoints"


def name(step: int) -> str:
    """Of the checkpoint after a step."""
    return f"step={step}.ckpt"


def find(root: str | Path) -> list[Path]:
    """All checkpoints of a run, newest first; SLURM's, which Lightning puts into the root, among them."""
    found = {path.resolve() for path in [*folder(root).glob("*.ckpt"), *Path(root).glob("hpc_ckpt_*.ckpt")]}
    return sorted(found, key=lambda path: path.stat().st_mtime_ns if path.exists() else 0, reverse=True)


def last(root: str | Path) -> Path | None:
    """The newest checkpoint of a run that is whole; None where there is none at all.

    Raises:
        InputError: there are checkpoints, but each is torn.
    """
    torn: list[str] = []
    for path in find(root):
        reason = defect(path)
        if reason is None:
            if torn:
                say(f"{', '.join(torn)}: going on with {path} instead")
            return path
        torn.append(f"{path} is torn ({reason})")
    if torn:
        raise InputError(f"{', '.join(torn)}; no other checkpoint is there: remove {folder(root)} to start afresh")
    return None


def defect(path: Path) -> str | None:
    """What is incorrect with a checkpoint, a file or a folder of shards; None where it is whole."""
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
    except Exception as error:  # damaged bytes fail in any way
        return str(error) or type(error).__name__
    return f"incorrect checksum of {bad}" if bad else None


class _Metadata(pickle.Unpickler):
    """ScoredPositions a sharded checkpoint's ``.metadata``, which torch pickles; other classes are refused."""

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
    """Read a whole checkpoint, a file or a folder of shards, but for the states of optimizers and schedules."""
    if path.is_file():
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    else:
        checkpoint = torch.load(path / "meta.pt", weights_only=True)
        checkpoint |= _read_shards(path, lambda name: name.startswith("state_dict."))
    return {key: value for key, value in checkpoint.items() if key not in ("optimizer_states", "lr_schedulers")}


def is_weights_only(path: Path) -> bool:
    """Whether a whole checkpoint has no optimizer state, so that training cannot go on from it."""
    return path.is_file() and "optimizer_states" not in torch.load(
        path, map_location="cpu", weights_only=True, mmap=True
    )


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links are not followed."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())


def _read_shards(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[Any, Any]:
    """Put the shards of a folder together, by this process alone; what was a list has numbers as keys."""
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
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # which is what no_dist asks for
        load(held, storage_reader=reader, no_dist=True)
    tree: dict[Any, Any] = {}
    for name, value in held.items():
        node, (*keys, last) = tree, metadata.planner_data[name]
        for key in keys:
            node = node.setdefault(key, {})
        node[last] = value
    return tree


class AnyCheckpoint(TorchCheckpointIO):
    """ScoredPositions FSDP2's folders of shards too, for a strategy that holds parameters whole; writes straight to disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a file as a whole or not at all; Lightning would first put it together in memory, twice."""
        with atomic.replacing(path) as draft, draft.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint; of a folder, in the form that a file has."""
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
    """On stderr, from one process."""
    print(f"stepverify: {message}", file=sys.stderr, flush=True)
