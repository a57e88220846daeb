"""A process that SIGTERM asks to end, while its step waits for another process for ever."""

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
_TIMES = 3  # the longest step so far


class StuckStep:
    """End the process with code 143 where a step does not, after SIGTERM.

    A Python handler runs between two instructions: never, while a collective operation waits in C. The byte that Python
    writes for each signal at once, to a pipe, is read by a thread.

    It waits for 60 seconds, or 3 times the longest step of the run if that is more.
    """

    def __init__(self) -> None:
        self._armed: float | None = None
        self._longest = 0.0
        self._pipe: tuple[int, int] | None = None
        self._before = -1

    def watch(self, trainer: lightning.Trainer, background: BackgroundSave) -> None:
        """Begin, in the main thread; a run of one process waits for no other."""
        if trainer.world_size == 1 or self._pipe is not None:
            return
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=self._run, args=(trainer, background, self._pipe[0]), daemon=True).start()

    def arm(self) -> None:
        """A step begins, perhaps right after another."""
        self.disarm()
        self._armed = time.monotonic()

    def disarm(self) -> None:
        """The step has ended; what follows may take as long as it wants."""
        if self._armed is not None:
            self._longest = max(self._longest, time.monotonic() - self._armed)
        self._armed = None

    def stop(self) -> None:
        """Stop watching."""
        self._armed = None
        if self._pipe is not None:
            signal.set_wakeup_fd(self._before)
            os.close(self._pipe[1])  # its reader ends
            self._pipe = None

    def _run(self, trainer: lightning.Trainer, background: BackgroundSave, pipe: int) -> None:
        while (byte := os.read(pipe, 1)) and byte[0] != signal.SIGTERM:
            pass
        os.close(pipe)
        asked = time.monotonic()
        while byte and self._pipe is not None:
            time.sleep(0.2)
            armed, limit = self._armed, max(GRACE_SECONDS, _TIMES * self._longest)
            # Lightning kills rank 0 when one of its other processes fails; so rank 0 goes first.
            limit += FOLLOW_SECONDS if trainer.local_rank else 0.0
            if armed is not None and time.monotonic() - max(armed, asked) > limit and not background.is_writing:
                self._end(trainer, limit)

    def _end(self, trainer: lightning.Trainer, limit: float) -> None:
        link = files.folder(trainer.default_root_dir) / "last.ckpt"
        stands = f"{link.resolve()} stands, go on with --ckpt_path last" if link.exists() else "nothing was saved yet"
        with suppress(OSError):  # nobody may read it any more
            print(
                f"stepverify fit: SIGTERM, but step {trainer.global_step + 1} has not ended in {limit:.3g} s (rank "
                f"{trainer.global_rank} waits, another process may be stuck): ended; {stands}",
                file=sys.stderr,
                flush=True,
            )
        os._exit(143)
