"""Further processes of one run end with the one that started them, instead of waiting for it in a collective operation.

Lightning has its main process end with the others, but not the other way round; torchrun ends all by itself.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress

GRACE_SECONDS = 10.0  # for a process's own message

_MAIN = "STEPVERIFY_MAIN_PID"  # inherited by the processes that Lightning starts


def follow_main() -> None:
    """End this process soon after the main one, if that has started it as a further rank."""
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        os.environ[_MAIN] = str(os.getpid())
    elif main := os.environ.get(_MAIN):
        threading.Thread(target=_follow, args=(int(main),), daemon=True).start()


def forget_main() -> None:
    """Stop being followed: programs that this process starts later are no ranks of its run."""
    os.environ.pop(_MAIN, None)


def _follow(main: int) -> None:
    while os.getppid() == main:
        time.sleep(1)
    time.sleep(GRACE_SECONDS)
    rank = os.environ["LOCAL_RANK"]
    with suppress(OSError):  # nobody may read it any more
        print(f"stepverify: rank 0 (process {main}) has ended, so local rank {rank} ends", file=sys.stderr, flush=True)
    os._exit(1)  # the main thread may wait in C for ever
