"""Checkpoints of a run: written whole or not at all, checked before they are used; SIGTERM ends in one."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from stepverify.callbacks.stored import defect
from stepverify.modules import VerifierModule
from stepverify.records import InputError


@dataclass(frozen=True, kw_only=True)
class Best:
    """The checkpoint chosen by a metric: its name, the step and epoch it is of, and what that validation gave."""

    monitor: str
    mode: str
    name: str
    step: int
    epoch: int
    metrics: dict[str, float]

    @property
    def value(self) -> float:
        """Of the metric that it was chosen by."""
        return self.metrics[self.monitor]


class Checkpoints(Checkpoint):
    """Saves ``checkpoints/step=N.ckpt`` below ``trainer.default_root_dir``, for ``--ckpt_path last``.

    Saves at the end of each epoch, at the end of training, in between as the arguments say, and on SIGTERM,
    which ends the run with exit code 143 once the running optimizer step is done. The link ``last.ckpt`` names
    the newest, ``best.ckpt`` the one whose validation was the best by ``monitor``, which is kept besides and whose
    weights :class:`HuggingFaceExport` writes. To stop early as well, add Lightning's EarlyStopping.

    Args:
        every_n_train_steps: save after each so many optimizer steps.
        train_time_interval: save in the middle of an epoch when the last save is so long ago, ``0:15:00`` in YAML.
        keep: how many are kept, the newest ones.
        monitor: metric of the validation, ``val/loss`` for example; null chooses none: the last weights are exported.
        mode: whether its ``min`` or ``max`` is the best. Of equal ones the first is kept.
    """

    def __init__(
        self,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = timedelta(minutes=15),
        keep: int = 2,
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
    ) -> None:
        if keep < 1 or (every_n_train_steps is not None and every_n_train_steps < 1):
            raise InputError(f"Checkpoints: keep and every_n_train_steps start at 1, not {keep}, {every_n_train_steps}")
        if (monitor is None) != (mode is None):
            raise InputError(f"Checkpoints: monitor and mode (min or max) go together, not {monitor} and {mode}")
        self.every_n_train_steps, self.train_time_interval, self.keep = every_n_train_steps, train_time_interval, keep
        self.monitor, self.mode = monitor, mode
        self._names: list[str] = []
        self._best: Best | None = None
        self._kept: list[str] = []
        self._dropped: list[str] = []
        self._known: set[str] = set()
        self._asked, self._written = False, False
        self._step, self._time = -1, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Names of the checkpoints that are kept: a resumed run removes no others. And which is the best."""
        return {"names": self._names, "best": self._best and asdict(self._best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the names, and the best one where it was chosen as it is now."""
        self._names = list(state_dict["names"])
        if (best := state_dict.get("best")) and (best["monitor"], best["mode"]) == (self.monitor, self.mode):
            self._best = Best(**best)
        self._kept = self._wanted()

    def _wanted(self) -> list[str]:
        return list(dict.fromkeys([*self._names, *([self._best.name] if self._best else [])]))

    # ── the best ──────────────────────────────────────────────────────────────────────────────────

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Refuse a metric that no validation will give, as far as it is known before one."""
        if self.monitor is None or stage != "fit" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if getattr(trainer.datamodule, "readers", {"validate": ()})["validate"] is None:  # type: ignore[attr-defined]
            raise InputError(f"Checkpoints.monitor: {self.monitor} is of the validation; give data.validation")
        self._known = pl_module.val_names() if isinstance(pl_module, VerifierModule) else set()
        others = [c for c in trainer.callbacks if type(c).__module__.split(".")[0] not in ("lightning", "stepverify")]  # type: ignore[attr-defined]
        self._known |= {name for c in others for name in getattr(c, "logged", ())}
        if all(hasattr(c, "logged") for c in others):
            self._check(self._known)

    def _check(self, known: set[str]) -> None:
        if self.monitor not in known:
            raise InputError(f"Checkpoints.monitor: there is no {self.monitor}, but {', '.join(sorted(known))}")

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare, once all callbacks have logged. Within an epoch save now; at its end that comes anyway."""
        if self.monitor is None or trainer.state.fn != "fit" or trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._publish(trainer)
        metrics = {
            k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/") or k == self.monitor
        }
        if self.monitor not in metrics:
            return self._check(self._known | metrics.keys())
        value, sign = metrics[self.monitor], 1 if self.mode == "max" else -1
        if math.isnan(value) or (self._best and sign * value <= sign * self._best.value):
            return None
        step, epoch = trainer.global_step, trainer.current_epoch
        self._best = Best(
            monitor=self.monitor, mode=str(self.mode), name=_name(step), step=step, epoch=epoch, metrics=metrics
        )
        if not trainer.fit_loop.epoch_loop._num_ready_batches_reached():
            self._save(trainer)
        return None

    # ── when ──────────────────────────────────────────────────────────────────────────────────────

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen for SIGTERM in Lightning's place; Lightning puts the handlers from before the fit back at its end."""
        self._step, self._time, self._asked = trainer.global_step, time.monotonic(), trainer.received_sigterm
        if self._best is not None:
            path = _folder(trainer.default_root_dir) / self._best.name
            if (reason := trainer.strategy.broadcast(defect(path) if trainer.is_global_zero else None)) is not None:
                _say(f"{path} was the best, but is torn ({reason}): the best of what follows is chosen")
                self._best = None
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
        name = _name(trainer.global_step)
        self._names = [*(n for n in self._names if n != name), name][-self.keep :]
        if trainer.is_global_zero:
            _remove(folder / ".draft")
        trainer.strategy.barrier("draft")
        try:
            trainer.save_checkpoint(folder / ".draft", weights_only=False)
        except OSError as error:
            if trainer.is_global_zero:
                _remove(folder / ".draft")
            raise InputError(f"{folder / name}: not saved, {error}; the checkpoint before it is still there") from error
        kept, self._kept = self._kept, self._wanted()
        self._dropped = [n for n in kept if n not in self._kept]
        self._written, self._time = True, time.monotonic()

    def _publish(self, trainer: lightning.Trainer) -> None:
        """Give a written checkpoint its name, once the loss of its step is on disk too: no resume leaves a gap."""
        if self._written and trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
            folder = _folder(trainer.default_root_dir)
            _flush(folder / ".draft")
            _replace(folder / ".draft", folder / self._names[-1])
            for link, name in (("last.ckpt", self._names[-1]), ("best.ckpt", self._best and self._best.name)):
                if name is not None:
                    _remove(folder / ".link")
                    (folder / ".link").symlink_to(name)
                    _replace(folder / ".link", folder / link)
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


def _name(step: int) -> str:
    return f"step={step}.ckpt"


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


def chosen(trainer: lightning.Trainer) -> tuple[Best, Path] | None:
    """The best checkpoint of a run whose :class:`Checkpoints` has a ``monitor``; None means the last weights.

    Where the metric was never a number, or the checkpoint is torn, it says so.
    """
    kept = next((c for c in trainer.callbacks if isinstance(c, Checkpoints)), None)  # type: ignore[attr-defined]
    if kept is None or kept.monitor is None:
        return None
    if kept._best is None:
        _say(f"no validation gave a {kept.monitor}: the last weights are exported")
        return None
    path = _folder(trainer.default_root_dir) / kept._best.name
    if (reason := defect(path)) is not None:
        _say(f"{path} was the best, but is torn ({reason}): the last weights are exported")
        return None
    return kept._best, path


@rank_zero_only
def _say(message: str) -> None:
    print(f"stepverify: {message}", file=sys.stderr, flush=True)
