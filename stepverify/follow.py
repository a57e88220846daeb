"""End the processes of a run when its main process ends.

Otherwise they would wait for it in a collective operation. Lightning ends its main process with the others, but not the
other way round; torchrun ends all by itself.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress

GRACE_SECONDS = 10.0  # time for a process's own error message

_MAIN = "STEPVERIFY_MAIN_PID"  # inherited by the processes that Lightning starts


def follow_main() -> None:
    """End this process soon after the main process that started it.

    Only ranks that Lightning started follow it.
    """
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        os.environ[_MAIN] = str(os.getpid())
    elif main := os.environ.get(_MAIN):
        threading.Thread(target=_follow, args=(int(main),), daemon=True).start()


def forget_main() -> None:
    """Stop being followed by programs started later.

    They are not ranks of this run.
    """
    os.environ.pop(_MAIN, None)


def _follow(main: int) -> None:
    while os.getppid() == main:
        time.sleep(1)
    time.sleep(GRACE_SECONDS)
    rank = os.environ["LOCAL_RANK"]
    with suppress(OSError):  # stderr may be closed
        print(f"stepverify: rank 0 (process {main}) has ended, so local rank {rank} ends", file=sys.stderr, flush=True)
    os._exit(1)  # the main thread may wait in C forever
