"""Checkpoints of a run: written whole or not at all, checked before they are used; SIGTERM ends in one."""

from __future__ import annotations

import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.distributed.tensor import DTensor

from stepverify import atomic
from stepverify.callbacks import files
from stepverify.callbacks.best import Best, Choice
from stepverify.callbacks.together import any_rank, exit_code, together
from stepverify.records import InputError


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
        self.every_n_train_steps, self.train_time_interval, self.keep = every_n_train_steps, train_time_interval, keep
        self.choice = Choice(monitor, mode)
        self._names: list[str] = []
        self._kept: list[str] = []
        self._dropped: list[str] = []
        self._asked, self._written = False, False
        self._step, self._time = -1, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Names of the checkpoints that are kept: a resumed run removes no others. And which is the best."""
        return {"names": self._names, "best": self.choice.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the names and the best."""
        self._names = list(state_dict["names"])
        self.choice.load(state_dict.get("best"))
        self._kept = self._wanted()

    def _wanted(self) -> list[str]:
        best = self.choice.best
        return self._names if best is None or best.name in self._names else [best.name, *self._names]

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Refuse a ``monitor`` that no validation will give, as far as that is known before one."""
        if stage == "fit" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.choice.check(trainer, pl_module)

    # ── when ──────────────────────────────────────────────────────────────────────────────────────

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen for SIGTERM in Lightning's place; Lightning puts the handlers from before the fit back at its end."""
        self._step, self._time, self._asked = trainer.global_step, time.monotonic(), trainer.received_sigterm
        if (best := self.choice.best) is not None:
            path = files.folder(trainer.default_root_dir) / best.name
            if (
                reason := trainer.strategy.broadcast(files.defect(path) if trainer.is_global_zero else None)
            ) is not None:
                files.say(f"{path} was the best, but is torn ({reason}): the best of what follows is chosen")
                self.choice.best = None
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
        stop, late = any_rank(trainer, self._asked, late)
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
        if not trainer.received_sigterm and any_rank(trainer, self._asked)[0]:
            _stop(trainer)
        if trainer.received_sigterm and not trainer.fit_loop.epoch_loop.val_loop.batch_progress.is_last_batch:
            self._save(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare it, now that all callbacks have logged. At the end of an epoch, a new best one is saved there."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._publish(trainer)
        if self.choice.compare(trainer) and not trainer.fit_loop.epoch_loop._num_ready_batches_reached():
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
        exception.code = exit_code(trainer, 143)
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
        trained = [p for p in trainer.lightning_module.parameters() if p.requires_grad]
        local = [p.to_local() if isinstance(p, DTensor) else p for p in trained]
        if any_rank(trainer, ~torch.stack([p.isfinite().all() for p in local]).all())[0]:
            with together(trainer):
                raise InputError(
                    f"step {trainer.global_step}: weights are not finite; not saved, go on from the one before"
                )
        folder = files.folder(trainer.default_root_dir)
        name = files.name(trainer.global_step)
        self._names = [*(n for n in self._names if n != name), name][-self.keep :]
        if trainer.is_global_zero:
            atomic.remove(folder / ".draft")
        trainer.strategy.barrier("draft")
        try:
            trainer.save_checkpoint(folder / ".draft", weights_only=False)
        except OSError as error:
            if trainer.is_global_zero:
                atomic.remove(folder / ".draft")
            raise InputError(f"{folder / name}: not saved, {error}; the checkpoint before it is still there") from error
        kept, self._kept = self._kept, self._wanted()
        self._dropped = [n for n in kept if n not in self._kept]
        self._written, self._time = True, time.monotonic()

    def _publish(self, trainer: lightning.Trainer) -> None:
        """Give a written checkpoint its name, once the loss of its step is on disk too: no resume leaves a gap."""
        if self._written and trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
            folder = files.folder(trainer.default_root_dir)
            atomic.publish(folder / ".draft", folder / self._names[-1])
            links = {"last.ckpt": self._names[-1]} | ({"best.ckpt": best.name} if (best := self.choice.best) else {})
            for link, name in links.items():
                atomic.remove(folder / ".link")
                (folder / ".link").symlink_to(name)
                atomic.publish(folder / ".link", folder / link)
            for name in self._dropped:
                atomic.remove(folder / name)
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


def _stop(trainer: lightning.Trainer) -> None:
    # Lightning's loops end by it when the step has been logged, on all ranks alike.
    trainer._signal_connector.received_sigterm = True


def chosen(trainer: lightning.Trainer) -> tuple[Best, Path] | None:
    """The best checkpoint of a run whose :class:`Checkpoints` has a ``monitor``; None means the last weights.

    Where the metric was never a number, or the checkpoint is torn, it says so.
    """
    kept = next((c for c in trainer.callbacks if isinstance(c, Checkpoints)), None)  # type: ignore[attr-defined]
    if kept is None or kept.choice.monitor is None:
        return None
    if (best := kept.choice.best) is None:
        files.say(f"no validation gave a {kept.choice.monitor}: the last weights are exported")
        return None
    path = files.folder(trainer.default_root_dir) / best.name
    if (reason := files.defect(path)) is not None:
        files.say(f"{path} was the best, but is torn ({reason}): the last weights are exported")
        return None
    return best, path
