"""A hook at every operation on the disk: end the process there, tear what it writes, or let the operation fail."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "os.chmod")


class Disk:
    """Count the operations of this process below a folder, and do something at one of them.

    For forked processes: the hook stays. Operations are those of Python's audit events (opened for writing, renamed,
    removed, made, cut, permissions) and every fsync, before which all that was written may be torn.

    Args:
        folder: operations elsewhere do not count.
        at: number of the operation, from 1; 0 only counts.
        act: called there with the name of the operation and the path.
    """

    def __init__(self, folder: Path, at: int, act: Callable[[str, str], None]) -> None:
        self.folder, self.at, self.act, self.count, self.names = str(folder), at, act, 0, list[str]()
        self._fsync, self._busy = os.fsync, False
        os.fsync = self._synced
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self._operation("open", arguments[0])
        elif event in _EVENTS:
            self._operation(event, arguments[0])

    def _synced(self, file: int) -> None:
        self._operation("os.fsync", file)
        self._fsync(file)

    def _operation(self, name: str, target: object) -> None:
        if self._busy or not isinstance(target, str | bytes | int | os.PathLike):
            return
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fsdecode(target)
        if not os.path.abspath(path).startswith(self.folder) or os.path.basename(path).startswith(".lock"):
            return
        self.count += 1
        self.names.append(name)
        if self.count == self.at:
            self._busy = True
            self.act(name, path)
            self._busy = False


def die(name: str, path: str) -> None:
    """End the process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def tear(name: str, path: str) -> None:
    """End the process after half of what was written last has reached the disk."""
    if name == "os.fsync" and os.path.isfile(path):
        content = Path(path).read_bytes()
        whole = content[:-1].rfind(b"\n") + 1
        os.truncate(path, whole + (len(content) - whole) // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def failing(code: int) -> Callable[[str, str], None]:
    """Let an operation fail with an error number of the system."""

    def act(name: str, path: str) -> None:
        raise OSError(code, os.strerror(code), path)

    return act


FAILURES = {"full": errno.ENOSPC, "read-only": errno.EROFS, "permission": errno.EACCES, "error": errno.EIO}
