"""End a process after SIGTERM if its step waits forever."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress

import lightning

from stepverify.callbacks import files
from stepverify.callbacks.background import BackgroundSave
from stepverify.follow import GRACE_SECONDS as FOLLOW_SECONDS

GRACE_SECONDS = 60.0
_TIMES = 3  # times the longest step so far


class StuckStep:
    """End the process with code 143 if it hangs after SIGTERM.

    Python runs signal handlers between instructions only: never while a collective operation waits in C. So a thread
    reads the byte that Python immediately writes to a pipe for each signal.

    It waits for 60 seconds, or 3 times the longest step of the run if that is more.
    """

    def __init__(self) -> None:
        self._armed: float | None = None
        self._longest = 0.0
        self._pipe: tuple[int, int] | None = None
        self._before = -1

    def watch(self, trainer: lightning.Trainer, background: BackgroundSave) -> None:
        """Start watching, from the main thread, in runs of several processes."""
        if trainer.world_size == 1 or self._pipe is not None:
            return
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=self._run, args=(trainer, background, self._pipe[0]), daemon=True).start()

    def arm(self) -> None:
        """Mark the start of a step, which ends a step before it."""
        self.disarm()
        self._armed = time.monotonic()

    def disarm(self) -> None:
        """Mark the end of a step; what follows may take any time."""
        if self._armed is not None:
            self._longest = max(self._longest, time.monotonic() - self._armed)
        self._armed = None

    def stop(self) -> None:
        """Stop watching."""
        self._armed = None
        if self._pipe is not None:
            signal.set_wakeup_fd(self._before)
            os.close(self._pipe[1])  # ends the reading thread
            self._pipe = None

    def _run(self, trainer: lightning.Trainer, background: BackgroundSave, pipe: int) -> None:
        while (byte := os.read(pipe, 1)) and byte[0] != signal.SIGTERM:
            pass
        os.close(pipe)
        asked = time.monotonic()
        while byte and self._pipe is not None:
            time.sleep(0.2)
            armed, limit = self._armed, max(GRACE_SECONDS, _TIMES * self._longest)
            # Rank 0 ends first, as Lightning kills it when one of its other processes fails.
            limit += FOLLOW_SECONDS if trainer.local_rank else 0.0
            if armed is not None and time.monotonic() - max(armed, asked) > limit and not background.is_writing:
                self._end(trainer, limit)

    def _end(self, trainer: lightning.Trainer, limit: float) -> None:
        link = files.folder(trainer.default_root_dir) / "last.ckpt"
        stands = f"{link.resolve()} stands, resume with --ckpt_path last" if link.exists() else "nothing was saved yet"
        with suppress(OSError):  # stderr may be closed
            print(
                f"stepverify fit: SIGTERM, but step {trainer.global_step + 1} has not ended in {limit:.3g} s (rank "
                f"{trainer.global_rank} waits, another process may be stuck): ended; {stands}",
                file=sys.stderr,
                flush=True,
            )
        os._exit(143)
