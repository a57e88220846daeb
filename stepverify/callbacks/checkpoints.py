"""Save checkpoints atomically, also on SIGTERM, and check them before use."""

from __future__ import annotations

import signal
import sys
import threading
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from stepverify import atomic
from stepverify.callbacks import files
from stepverify.callbacks.background import BackgroundSave, prepare, publish
from stepverify.callbacks.best import Choice
from stepverify.callbacks.final import Final, check_final, reduce_to
from stepverify.callbacks.finite import check_weights
from stepverify.callbacks.stuck import StuckStep
from stepverify.callbacks.together import any_rank, exit_code, together
from stepverify.lightning_compat import dump_checkpoint, is_epoch_end, saves_shards, stop_training
from stepverify.records import InputError

_FINISH_SECONDS = 30.0  # for a write with other ranks, which may have ended


class Checkpoints(Checkpoint):
    """Save checkpoints that ``--ckpt_path last`` resumes from.

    They are saved as ``checkpoints/step=N.ckpt`` below ``trainer.default_root_dir``: at the end of each epoch, at the
    end of training, in between as the arguments say, and on SIGTERM, which ends the run with exit code 143 once the
    current optimizer step is done. The link ``last.ckpt`` points to the newest, ``best.ckpt`` to the one with the best
    validation by ``monitor``, which is kept in addition and whose weights :class:`HuggingFaceExport` writes. For early
    stopping, add Lightning's EarlyStopping.

    The share of time that training waited for checkpoints is logged (``checkpoints/share``) and printed at the end.

    Args:
        every_n_train_steps: save after every so many optimizer steps.
        train_time_interval: save within an epoch when the last save is this long ago, ``0:15:00`` in YAML.
        keep: number of checkpoints to keep, the newest ones.
        monitor: validation metric that chooses the best checkpoint, for example ``val/loss``; with null, the final
            weights are exported.
        mode: whether ``min`` or ``max`` of the metric is the best. The first of equal ones is kept.
        async_save: copy the state to host memory, which needs as much as one checkpoint, and write it from there while
            training continues. With False training waits.
        max_share: share of the run's time that training may wait for saves within an epoch; a save that would exceed it
            is postponed. 1 postpones none. The best checkpoint, the end of an epoch and SIGTERM are never postponed.
        final: checkpoints that a finished run keeps, once the export is written: ``all``; the ``last`` one, from which
            training can continue, and the weights of the best one; the ``weights`` of the last one only; or ``none``.

    Attributes:
        kept: names of the checkpoints on disk, including the best.
    """

    def __init__(
        self,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = timedelta(minutes=15),
        keep: int = 2,
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
        async_save: bool = True,
        max_share: float = 0.05,
        final: Final = "last",
    ) -> None:
        if keep < 1 or (every_n_train_steps is not None and every_n_train_steps < 1):
            raise InputError(f"Checkpoints: keep and every_n_train_steps start at 1, not {keep}, {every_n_train_steps}")
        if not 0 < max_share <= 1:
            raise InputError(f"Checkpoints.max_share: expected a share above 0, at most 1, got {max_share}")
        self.every_n_train_steps, self.train_time_interval, self.keep = every_n_train_steps, train_time_interval, keep
        self.choice = Choice(monitor, mode)
        self.async_save, self.max_share, self.final = async_save, max_share, final
        self._background, self._group = BackgroundSave(), None
        self._stuck = StuckStep()
        self._names: list[str] = []
        self.kept: list[str] = []
        self._asked, self._agreed, self._unlogged = False, False, False
        self._put_off, self._num_put_off = False, 0
        self._step, self._time = -1, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the names of the kept checkpoints, and the best one."""
        return {"names": self._names, "best": self.choice.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the names of the kept checkpoints, and the best one."""
        self._names = list(state_dict["names"])
        self.choice.load(state_dict.get("best"))
        self.kept = self._wanted()

    def _wanted(self) -> list[str]:
        best = self.choice.best
        return self._names if best is None or best.name in self._names else [best.name, *self._names]

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Refuse a ``monitor`` that no validation will log, as far as known."""
        if stage == "fit" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.choice.check(trainer, pl_module)
            check_final(trainer, self.final)

    # ── when ──────────────────────────────────────────────────────────────────────────────────────

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Handle SIGTERM until the fit ends, instead of Lightning."""
        self._step, self._asked = trainer.global_step, trainer.received_sigterm
        self._time = self._background.began = time.monotonic()
        if saves_shards(trainer.strategy):  # the writing threads communicate at the same time as the main threads
            self._group = torch.distributed.new_group(backend="gloo")
        if (best := self.choice.best) is not None:
            path = files.folder(trainer.default_root_dir) / best.name
            if (
                reason := trainer.strategy.broadcast(files.defect(path) if trainer.is_global_zero else None)
            ) is not None:
                files.say(f"{path} was the best, but is torn ({reason}): the best of the following ones is chosen")
                self.choice.best = None
        # Lightning's own handler broadcasts at once, wherever the other ranks are, and only rank 0's signal counts.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask)
            self._stuck.watch(trainer, self._background)

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time to. All ranks decide together."""
        if trainer.global_step == self._step:
            return  # gradients are still being accumulated
        self._step = trainer.global_step
        interval = self.train_time_interval
        late = interval is not None and time.monotonic() - self._time >= interval.total_seconds()
        costly = self._background.is_costly(self.max_share)
        self._agreed, late, costly, failed = any_rank(trainer, self._asked, late, costly, self._background.failed)
        if failed:
            self._finish(trainer)
        if self._agreed:
            stop_training(trainer)
        loop = trainer.fit_loop.epoch_loop
        # An epoch's last step is saved after the validation: resumed from here, Lightning would skip it.
        if is_epoch_end(trainer):
            return
        regular = self.every_n_train_steps and self._step % self.every_n_train_steps == 0
        wanted = late or regular or self._put_off
        if self._agreed or loop.done or (wanted and not costly):
            self._save(trainer)
        elif wanted and not self._put_off:
            self._put_off, self._num_put_off = True, self._num_put_off + 1

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Stop within the validation on SIGTERM; the resumed run repeats it."""
        self._stuck.disarm()
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if not trainer.received_sigterm and any_rank(trainer, self._asked)[0]:
            self._agreed = True
            stop_training(trainer)
        if trainer.received_sigterm and not trainer.fit_loop.epoch_loop.val_loop.batch_progress.is_last_batch:
            self._save(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare the validation after all callbacks logged; save the best."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._release(trainer)
        if self.choice.compare(trainer) and not is_epoch_end(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save at an epoch's end, unless ``max_steps`` ended it."""
        if is_epoch_end(trainer):
            self._save(trainer)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Finish the checkpoint in progress; after SIGTERM, set the exit code."""
        self._release(trainer)
        stopped = isinstance(exception, SIGTERMException)
        # With an exception, other ranks may have stopped anywhere.
        error = self._background.finish(None if stopped or trainer.world_size == 1 else _FINISH_SECONDS)
        if error is not None:
            files.say(self._message(trainer, error))
        if not stopped:
            return
        if self._agreed:  # a launcher may end all ranks with the first that ends, also one that still writes
            trainer.strategy.barrier("saved")
        exception.code = exit_code(trainer, 143 if error is None else 2)  # type: ignore[attr-defined]
        if trainer.is_global_zero and error is None:
            after = f"stepverify fit: stopped by SIGTERM after step {trainer.global_step}"
            print(f"{after}; resume with --ckpt_path last", file=sys.stderr, flush=True)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Remove checkpoints that a finished, exported run no longer needs."""
        if trainer.is_global_zero and not trainer.interrupted and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            reduce_to(Path(trainer.default_root_dir), self.final, self.kept)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Stop watching for stuck steps."""
        self._stuck.stop()

    # ── how ───────────────────────────────────────────────────────────────────────────────────────

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Reset the progress of a validation; a resumed run restarts it."""
        if trainer.validating:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            progress["current"] = dict.fromkeys(progress["current"], 0)
            progress["total"] = progress["current"] | {"ready": 1, "started": 1}
            progress["is_last_batch"] = False

    def _save(self, trainer: lightning.Trainer) -> None:
        start = time.monotonic()
        self._stuck.disarm()
        self._finish(trainer)
        check_weights(trainer)
        folder, name = files.folder(trainer.default_root_dir), files.name(trainer.global_step)
        self._names = [*(n for n in self._names if n != name), name][-self.keep :]
        kept, self.kept = self.kept, self._wanted()
        if trainer.is_global_zero:
            atomic.remove(folder / ".draft")
            folder.mkdir(parents=True, exist_ok=True)
        trainer.strategy.barrier("draft")
        checkpoint = dump_checkpoint(trainer)
        write = prepare(trainer, checkpoint, folder / ".draft", self._group, in_place=not self.async_save)
        links = {"last.ckpt": name} | ({"best.ckpt": best.name} if (best := self.choice.best) else {})
        dropped = [n for n in kept if n not in self.kept]
        self._background.start(
            write, partial(publish, folder, name, links, dropped) if trainer.is_global_zero else lambda: None
        )
        if not self.async_save:
            self._background.wait_written()
        self._unlogged, self._put_off, self._time = True, False, time.monotonic()
        self._background.add_wait(self._time - start)
        for logger in trainer.loggers:
            logger.log_metrics({"checkpoints/share": self._background.share}, step=trainer.global_step)

    def _release(self, trainer: lightning.Trainer) -> None:
        """Publish the checkpoint, with its step's loss written to disk first."""
        if self._unlogged and trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
        self._unlogged = False
        self._background.logged()

    def _finish(self, trainer: lightning.Trainer) -> None:
        """Wait for a checkpoint in progress.

        Raises:
            InputError: it could not be written.
        """
        self._release(trainer)
        with together(trainer):
            if (error := self._background.finish()) is not None:
                raise InputError(self._message(trainer, error)) from error

    def _message(self, trainer: lightning.Trainer, error: BaseException) -> str:
        path = files.folder(trainer.default_root_dir) / self._names[-1]
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return f"{path}: not saved, {reason}; the checkpoint before it is kept"

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Publish a checkpoint whose step is logged completely."""
        self._release(trainer)
        self._stuck.arm()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Publish a checkpoint whose step is logged completely."""
        self._release(trainer)
        self._stuck.disarm()

    def on_validation_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Watch for a stuck step, as ranks may wait for each other."""
        self._stuck.arm()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Wait for the last checkpoint, and print the time spent waiting."""
        start = time.monotonic()
        self._stuck.disarm()
        self._finish(trainer)
        self._background.add_wait(time.monotonic() - start)
        put_off = f"; {self._num_put_off} were postponed (max_share: {self.max_share:g})" if self._num_put_off else ""
        files.say(f"checkpoints: {self._background}{put_off}")
