"""Checkpoints of a run: written whole or not at all, checked before they are used; SIGTERM ends in one."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
import threading
import time
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from stepverify.records import InputError


class Checkpoints(Checkpoint):
    """Saves ``checkpoints/step=N.ckpt`` below ``trainer.default_root_dir``, for ``--ckpt_path last``.

    Saves at the end of each epoch, at the end of training, in between as the arguments say, and on SIGTERM,
    which ends the run with exit code 143 once the running optimizer step is done. The link ``last.ckpt`` names
    the newest. To keep a best one as well, add Lightning's ModelCheckpoint.

    Args:
        every_n_train_steps: save after each so many optimizer steps.
        train_time_interval: save in the middle of an epoch when the last save is so long ago, ``0:15:00`` in YAML.
        keep: how many are kept, the newest ones.
    """

    def __init__(
        self,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = timedelta(minutes=15),
        keep: int = 2,
    ) -> None:
        if keep < 1 or (every_n_train_steps is not None and every_n_train_steps < 1):
            raise InputError(f"Checkpoints: keep and every_n_train_steps start at 1, not {keep}, {every_n_train_steps}")
        self.every_n_train_steps, self.train_time_interval, self.keep = every_n_train_steps, train_time_interval, keep
        self._names: list[str] = []
        self._dropped: list[str] = []
        self._asked, self._written = False, False
        self._step, self._time = -1, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Names of the checkpoints that are kept: a resumed run removes no others."""
        return {"names": self._names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the names."""
        self._names = list(state_dict["names"])

    # ── when ──────────────────────────────────────────────────────────────────────────────────────

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen for SIGTERM in Lightning's place; Lightning puts the handlers from before the fit back at its end."""
        self._step, self._time, self._asked = trainer.global_step, time.monotonic(), trainer.received_sigterm
        # Lightning's own handler broadcasts right away, wherever the other ranks are, and heeds rank 0 only.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time to. The ranks decide together."""
        if trainer.global_step == self._step:
            return  # gradients are still being accumulated
        self._step = trainer.global_step
        interval = self.train_time_interval
        late = interval is not None and time.monotonic() - self._time >= interval.total_seconds()
        stop, late = _any_rank(trainer, self._asked, late)
        if stop:
            _stop(trainer)
        loop = trainer.fit_loop.epoch_loop
        # Resumed from here, Lightning would leave the validation out; an epoch's last step is saved after it.
        if loop._num_ready_batches_reached():
            return
        regular = self.every_n_train_steps and self._step % self.every_n_train_steps == 0
        if stop or late or regular or loop.done:
            self._save(trainer)

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """On SIGTERM do not wait for the rest of the validation: the resumed run goes through it again."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if not trainer.received_sigterm and _any_rank(trainer, self._asked)[0]:
            _stop(trainer)
        if trainer.received_sigterm and not trainer.fit_loop.epoch_loop.val_loop.batch_progress.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save a finished epoch; one that ``max_steps`` cut off was saved after its step."""
        if trainer.fit_loop.epoch_loop._num_ready_batches_reached():
            self._save(trainer)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """After SIGTERM: say so in one line, and choose the exit code."""
        self._publish(trainer)
        if not isinstance(exception, SIGTERMException):
            return
        # Lightning kills rank 0 when a process that it started itself ends with another code than 0.
        environment = getattr(trainer.strategy, "cluster_environment", None)
        exception.code = 0 if isinstance(environment, LightningEnvironment) and trainer.local_rank else 143
        if trainer.is_global_zero:
            print(
                f"stepverify fit: stopped by SIGTERM after step {trainer.global_step}; go on with --ckpt_path last",
                file=sys.stderr,
                flush=True,
            )

    # ── how ───────────────────────────────────────────────────────────────────────────────────────

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Saved within a validation: have the resumed run start it again, not go on with results that are lost."""
        if trainer.validating:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            progress["current"] = dict.fromkeys(progress["current"], 0)
            progress["total"] = progress["current"] | {"ready": 1, "started": 1}
            progress["is_last_batch"] = False

    def _save(self, trainer: lightning.Trainer) -> None:
        self._publish(trainer)
        folder = _folder(trainer.default_root_dir)
        name = f"step={trainer.global_step}.ckpt"
        self._names = [*(n for n in self._names if n != name), name]
        kept, self._names = self._names, self._names[-self.keep :]
        if trainer.is_global_zero:
            _remove(folder / ".draft")
        trainer.strategy.barrier("draft")
        try:
            trainer.save_checkpoint(folder / ".draft", weights_only=False)
        except OSError as error:
            if trainer.is_global_zero:
                _remove(folder / ".draft")
            raise InputError(f"{folder / name}: not saved, {error}; the checkpoint before it is still there") from error
        self._dropped = [n for n in kept if n not in self._names]
        self._written, self._time = True, time.monotonic()

    def _publish(self, trainer: lightning.Trainer) -> None:
        """Give a written checkpoint its name, once the loss of its step is on disk too: no resume leaves a gap."""
        if self._written and trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
            folder = _folder(trainer.default_root_dir)
            _flush(folder / ".draft")
            _replace(folder / ".draft", folder / self._names[-1])
            _remove(folder / ".link")
            (folder / ".link").symlink_to(self._names[-1])
            _replace(folder / ".link", folder / "last.ckpt")
            _flush(folder)
            for name in self._dropped:
                _remove(folder / name)
        self._written = False

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """What was written after the last step is complete."""
        self._publish(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """What was written after the last step is complete."""
        self._publish(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """What was written after the last step is complete."""
        self._publish(trainer)


def _any_rank(trainer: lightning.Trainer, *wishes: bool) -> list[bool]:
    if trainer.world_size == 1:
        return list(wishes)
    votes = torch.tensor(wishes, dtype=torch.int32, device=trainer.strategy.root_device)
    return [bool(count) for count in trainer.strategy.reduce(votes, reduce_op="sum").tolist()]


def _stop(trainer: lightning.Trainer) -> None:
    # Lightning's loops end by it when the step has been logged, on all ranks alike.
    trainer._signal_connector.received_sigterm = True


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────


def _folder(root: str | Path) -> Path:
    return Path(root) / "checkpoints"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace(source: Path, target: Path) -> None:
    """Rename; unlike a file, a folder must be out of the way first."""
    aside = target.with_name(".aside")
    if target.is_dir() and not target.is_symlink():
        _remove(aside)
        target.rename(aside)
    source.replace(target)
    _remove(aside)


def _flush(path: Path) -> None:
    for item in [*(path.iterdir() if path.name == ".draft" and path.is_dir() else ()), path]:
        descriptor = os.open(item, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def find(root: str | Path) -> list[Path]:
    """All checkpoints of a run, newest first; SLURM's, which Lightning puts into the root, among them."""
    found = {path.resolve() for path in [*_folder(root).glob("*.ckpt"), *Path(root).glob("hpc_ckpt_*.ckpt")]}
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
                _say(f"{', '.join(torn)}: going on with {path} instead")
            return path
        torn.append(f"{path} is torn ({reason})")
    if torn:
        raise InputError(f"{', '.join(torn)}; no other checkpoint is there: remove {_folder(root)} to start afresh")
    return None


def defect(path: Path) -> str | None:
    """What is wrong with a checkpoint, a file or a folder of shards; None where it is whole."""
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
    return f"wrong checksum of {bad}" if bad else None


class _Metadata(pickle.Unpickler):
    """Reads a sharded checkpoint's ``.metadata``, which torch pickles; other classes are refused."""

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


@rank_zero_only
def _say(message: str) -> None:
    print(f"stepverify: {message}", file=sys.stderr, flush=True)
