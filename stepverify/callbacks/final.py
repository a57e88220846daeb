"""Remove checkpoints that a finished run does not keep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import lightning
import torch

from stepverify import atomic
from stepverify.callbacks import files
from stepverify.callbacks.export import HuggingFaceExport
from stepverify.records import InputError

Final = Literal["all", "last", "weights", "none"]


def check_final(trainer: lightning.Trainer, final: Final) -> None:
    """Refuse to keep less than the last checkpoint without an export.

    Raises:
        InputError: ``final`` needs :class:`HuggingFaceExport`.
    """
    callbacks: list[lightning.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if final in ("weights", "none") and not any(isinstance(c, HuggingFaceExport) for c in callbacks):
        raise InputError(f"Checkpoints.final: {final}, but nothing is exported; add HuggingFaceExport, or choose last")


def reduce_to(root: Path, final: Final, names: Sequence[str]) -> None:
    """Remove checkpoints of a finished run that ``final`` does not keep.

    Prints what was removed.

    If it was killed, it can be run again to complete.

    Args:
        root: the run's folder, with the export written.
        final: ``all``, the ``last`` one with optimizer state, its ``weights``, or ``none``.
        names: names of the run's checkpoints; other files are left alone.
    """
    folder = files.folder(root)
    links = {name: folder / f"{name}.ckpt" for name in ("last", "best")}
    paths = {name: link.parent / link.readlink() for name, link in links.items() if link.is_symlink()}
    if final == "all" or "last" not in paths:
        return
    for path in paths.values():
        atomic.restore(path)
    kept = {"last": [*paths.values()], "weights": [paths["last"]], "none": []}[final]
    before, done = files.size(folder), []
    if removed := [path for path in (folder / name for name in names) if path not in kept and path.exists()]:
        done.append(f"removed {', '.join(path.name for path in removed)}")
    for path in kept:
        if (final == "weights" or path != paths["last"]) and _has_optimizer(path):
            _keep_weights(path)
            done.append(f"kept the weights of {path.name} without its optimizer state")
    # Links first: a link without target is not a checkpoint.
    for link in [link for name, link in links.items() if name in paths and paths[name] not in kept]:
        atomic.remove(link)
    for path in removed:
        atomic.remove(path)
    if done:
        freed = (before - files.size(folder)) / 1e9
        files.say(f"{folder}: finished, so {' and '.join(done)} (Checkpoints.final: {final}); {freed:.2f} GB freed")


def _has_optimizer(path: Path) -> bool:
    """Check for an optimizer state to remove; False for damaged checkpoints."""
    try:
        return not files.is_weights_only(path)
    except Exception:  # damaged files raise all kinds of errors
        return False


def _keep_weights(path: Path) -> None:
    """Replace a checkpoint by a file without optimizer state."""
    checkpoint, stat = files.read_without_optimizer(path), path.stat()
    with atomic.replacing(path) as draft:
        torch.save(checkpoint, draft)
        os.utime(draft, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # keeps the order of checkpoints by time
