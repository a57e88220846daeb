"""Lock an output folder for one writing process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from stepverify import atomic
from stepverify.records import InputError

LOCK = ".lock"

_BEAT = 10.0  # seconds between two signs of life
_DEAD = 60.0  # seconds without one after which a process on another machine counts as dead
_SETTLE = 0.5  # seconds in which another process would have overwritten a lock that was taken without flock
_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class FolderLock:
    """Hold the right to write a folder: one process at a time, on any machine that sees it.

    The file ``.lock`` in the folder says who holds it (host, process, since when) and is removed at the end. It is
    locked with ``flock``, which ends with its process, also over NFS. For file systems on which that holds on one
    machine alone, or not at all, the holder touches the file every ten seconds; a lock of another machine counts as
    left behind after a minute without. Clocks of two machines are not compared: the file system's own tells the age.

    Args:
        folder: there already.

    Raises:
        InputError: another process is writing the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._file = _open(self.path)
        try:
            held = self._flock()
            if (holder := _read(self._file)) and _lives(holder, self.path, flocked=held):
                raise InputError(_refusal(self.path, holder))
            self._mine = {"host": atomic.HOST, "pid": os.getpid(), "born": _born(os.getpid()), "since": _now()}
            self._write()
            if not held:
                self._settle()
        except BaseException:
            os.close(self._file)
            raise
        self._end = threading.Event()
        self._beat = threading.Thread(target=self._touch, name="folder lock", daemon=True)
        self._beat.start()

    def held(self) -> bool:
        """Check that the folder is still this process's: neither removed, nor taken over after a long standstill."""
        return is_named(self._file, self.path)

    def release(self) -> None:
        """Give the folder up; the file goes."""
        self._end.set()
        self._beat.join()
        with contextlib.suppress(OSError):  # the folder may be gone
            if self.held():
                self.path.unlink()
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _flock(self) -> bool:
        """Lock the file; False where the file system has no such locks."""
        while True:
            try:
                if not take(self._file):
                    raise InputError(_refusal(self.path, _read(self._file)))
            except OSError as error:
                if error.errno in _UNSUPPORTED:
                    return False
                raise
            if is_named(self._file, self.path):
                return True
            os.close(self._file)
            self._file = _open(self.path)

    def _write(self) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(self._mine).encode(), 0)
        os.fsync(self._file)

    def _settle(self) -> None:
        """Wait until whoever came at the same moment has written too: the last one has it."""
        time.sleep(_SETTLE)
        if (holder := _read(self._file)) != self._mine:
            raise InputError(_refusal(self.path, holder))

    def _touch(self) -> None:
        while not self._end.wait(_BEAT):
            with contextlib.suppress(OSError):
                os.utime(self._file)


def take(file: int) -> bool:
    """Lock an open file with ``flock``; False where another process has it.

    Raises:
        OSError: the file system has no such locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_named(file: int, path: Path) -> bool:
    """Check that a path still names an open file: the holder of a lock removes it between another's open and flock."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), path.stat())
    return False


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, made where there is none, for the block; remove it if the block leaves it empty."""
    made = atomic.make_folder(folder)
    try:
        with FolderLock(folder):
            yield
    finally:
        atomic.remove_empty(made)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _read(file: int) -> dict[str, Any] | None:
    """Return who holds the lock; None for an empty file, or one that a kill tore."""
    try:
        holder = json.loads(os.pread(file, 4096, 0))
        return holder if {"host", "pid", "born", "since"} <= holder.keys() else None
    except (ValueError, AttributeError):
        return None


def _lives(holder: dict[str, Any], path: Path, *, flocked: bool) -> bool:
    """Tell whether the process that wrote the lock may still write the folder."""
    if holder["host"] == atomic.HOST:
        # It would hold the flock; without these, a process id may have been given again since.
        return not flocked and holder["pid"] != os.getpid() and _born(holder["pid"]) == holder["born"] is not None
    return _age(path) < _DEAD


def _age(path: Path) -> float:
    """Return the seconds since the last sign of life, by the clock of the file system."""
    probe = path.with_name(f"{LOCK}.{os.getpid()}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _born(pid: int) -> str | None:
    """Return when a process started, in ticks since the boot; None where there is none, or the system does not say."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return "alive" if atomic.is_running(pid) else None


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _refusal(path: Path, holder: dict[str, Any] | None) -> str:
    if holder is None:
        return f"{path.parent}: another process is writing it; wait for its end, or choose another output"
    return (
        f"{path.parent}: process {holder['pid']} on {holder['host']} has been writing it since {holder['since']}; "
        f"wait for its end, stop it, or choose another output"
    )
