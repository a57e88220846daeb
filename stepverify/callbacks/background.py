"""Write checkpoints in a thread while training goes on."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from stepverify import atomic
from stepverify.lightning_compat import saves_shards


class BackgroundSave:
    """Write one checkpoint at a time to a draft, then publish it.

    The thread is a daemon: a thread that waits for a dead process does not keep this process alive.

    Attributes:
        began: when training started, by the monotonic clock.
    """

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._waited, self._last_wait, self._writing, self._count = 0.0, 0.0, 0.0, 0
        self._thread: threading.Thread | None = None
        self._logged, self._written = threading.Event(), threading.Event()
        self._error: BaseException | None = None

    @property
    def is_writing(self) -> bool:
        """Check whether a checkpoint is being written or published.

        False while it waits for the log.
        """
        running = self._thread is not None and self._thread.is_alive()
        return running and (self._logged.is_set() or not self._written.is_set())

    @property
    def failed(self) -> bool:
        """Check whether the last checkpoint could not be written.

        :meth:`finish` returns the reason.
        """
        return self._error is not None

    @property
    def share(self) -> float:
        """Return the share of the training time spent waiting for checkpoints."""
        return self._waited / max(time.monotonic() - self.began, 1e-9)

    def add_wait(self, seconds: float) -> None:
        """Add the seconds that training has just waited."""
        self._waited, self._last_wait = self._waited + seconds, seconds

    def is_costly(self, max_share: float) -> bool:
        """Check whether another such wait would exceed a share of the time.

        A share of 1 is never exceeded.
        """
        return max_share < 1 and self._waited + self._last_wait > max_share * (time.monotonic() - self.began)

    def __str__(self) -> str:
        total = time.monotonic() - self.began
        return (
            f"{self._count} saved, training waited {self._waited:.1f} s for them, {self.share:.1%} of {total:.0f} s; "
            f"writing them took {self._writing:.1f} s"
        )

    def start(self, write: Callable[[], None], publish: Callable[[], None]) -> None:
        """Start writing; the previous checkpoint must be finished."""
        self._logged.clear()
        self._written.clear()
        self._thread = threading.Thread(target=self._run, args=(write, publish), name="checkpoint", daemon=True)
        self._thread.start()

    def logged(self) -> None:
        """Allow the written checkpoint to be published.

        By then the loss of its step is on disk.
        """
        self._logged.set()

    def wait_written(self) -> None:
        """Wait until the training state is no longer read."""
        self._written.wait()

    def finish(self, seconds: float | None = None) -> BaseException | None:
        """Wait for a checkpoint in progress; return its error, if any."""
        self._logged.set()
        if self._thread is not None:
            self._thread.join(seconds)
        error, self._error = self._error, None
        return error

    def _run(self, write: Callable[[], None], publish: Callable[[], None]) -> None:
        try:
            start = time.monotonic()
            write()
            self._writing += time.monotonic() - start
            self._written.set()
            self._logged.wait()
            start = time.monotonic()
            publish()
            self._writing += time.monotonic() - start
            self._count += 1
        except BaseException as error:  # of any kind, to be reported by finish()
            self._error = error
        finally:
            self._written.set()


def snapshot(checkpoint: Any) -> Any:
    """Copy a checkpoint to host memory.

    The next optimizer step changes its tensors in place.

    Tied weights stay tied.
    """
    copied: dict[tuple[Any, ...], Tensor] = {}

    def take(value: Any) -> Any:
        if isinstance(value, Tensor):
            local = value.to_local() if isinstance(value, DTensor) else value
            place = (local.untyped_storage().data_ptr(), local.storage_offset(), local.shape, local.stride())
            key = (*place, local.dtype, local.device, type(value))
            if not local.numel() or key not in copied:
                value = value.detach()
                copied[key] = value.clone() if local.device.type == "cpu" else value.cpu()
            return copied[key]
        if isinstance(value, dict):
            taken = copy.copy(value)  # keeps class and attributes
            taken.update((name, take(item)) for name, item in value.items())
            return taken
        if type(value) in (list, tuple):
            return type(value)(take(item) for item in value)
        return copy.deepcopy(value)

    return take(checkpoint)


def prepare(
    trainer: lightning.Trainer, checkpoint: dict[str, Any], draft: Path, group: Any, *, in_place: bool
) -> Callable[[], None]:
    """Copy this rank's part of a checkpoint; the returned function writes it.

    Args:
        trainer: its strategy determines what is written where.
        checkpoint: as Lightning dumps it, on every rank.
        draft: a file, or a folder of shards.
        group: process group on the CPU for the writing threads of all ranks; for shards only.
        in_place: do not copy; then nothing may change before it is written.
    """
    strategy = trainer.strategy
    take: Callable[[Any], Any] = (lambda value: value) if in_place else snapshot
    if saves_shards(strategy):
        draft.mkdir(parents=True, exist_ok=True)
        taken = take(checkpoint)
        # The layout that Lightning's ModelParallelStrategy reads.
        shards = {"state_dict": taken.pop("state_dict")}
        shards |= {f"optimizer_{i}": state for i, state in enumerate(taken.pop("optimizer_states", ()))}

        def write() -> None:
            save(shards, checkpoint_id=draft, process_group=group)
            if trainer.is_global_zero:
                torch.save(taken, draft / "meta.pt")

        return write
    whole = isinstance(strategy, ModelParallelStrategy) or type(strategy).save_checkpoint is Strategy.save_checkpoint
    if not whole:  # the strategy has its own way of saving, on all ranks
        strategy.save_checkpoint(checkpoint, draft)
        return lambda: None
    if not trainer.is_global_zero:
        return lambda: None
    taken = take(checkpoint)
    return lambda: strategy.checkpoint_io.save_checkpoint(taken, draft)


def publish(folder: Path, name: str, links: Mapping[str, str], dropped: Sequence[str]) -> None:
    """Give a written checkpoint its final name; remove old ones."""
    atomic.publish(folder / ".draft", folder / name)
    for link, target in links.items():
        atomic.remove(folder / ".link")
        (folder / ".link").symlink_to(target)
        atomic.publish(folder / ".link", folder / link)
    for old in dropped:
        atomic.remove(folder / old)
