"""Keep encoded examples between runs: one folder a key, built once, read by any number of processes.

A table appears under its key as a whole or not at all. Processes that want the same one wait for a lock on the file
system, not for each other's messages, so it does not matter which of them come, or when; the kernel releases the lock
of one that is killed. Beyond a bound the tables that were not used for longest, and that nobody has open, are removed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from stepverify import atomic
from stepverify.data.arrays import INDEX, Damaged, MappedArrays, in_use
from stepverify.lock import is_named, take
from stepverify.records import InputError

_POLL = 0.1  # seconds
_SAID_AFTER = 5.0
_GIB = 50.0
Arrays = TypeVar("Arrays", bound=MappedArrays)


def cache_folder(chosen: bool | str) -> Path | None:
    """Name the folder that encoded examples are kept in.

    Args:
        chosen: a folder; or True for ``examples`` in ``$STEPVERIFY_CACHE``, by default ``~/.cache/stepverify`` (in
            ``$XDG_CACHE_HOME`` where that is set). False: None is returned.
    """
    if isinstance(chosen, str):
        return Path(chosen).expanduser()
    if not chosen:
        return None
    own = os.environ.get("STEPVERIFY_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "stepverify"
    return Path(own).expanduser() / "examples"


def size_bound() -> float:
    """Return the bytes that the tables of a cache folder may take together: ``$STEPVERIFY_CACHE_GIB``, by default 50.

    Raises:
        InputError: it is no number.
    """
    given = os.environ.get("STEPVERIFY_CACHE_GIB", str(_GIB))
    try:
        return float(given) * 2**30
    except ValueError:
        raise InputError(f"STEPVERIFY_CACHE_GIB: expected a number, got {given!r}") from None


def find_or_build(
    folder: Path, build: Callable[[Path], None], verify: Callable[[Arrays], None], name: str,
    opened: Callable[[Path], Arrays],
) -> tuple[Arrays, bool]:  # fmt: skip
    """Open the table in a folder; build it where there is none, or none that is whole.

    Args:
        folder: of the table; its name is the key.
        build: writes a table into an empty folder.
        verify: raises :class:`Damaged` where the table is not what ``build`` would write.
        name: of the examples, for the log.
        opened: opens the table in a folder.

    Returns:
        The table, and whether it was there.

    Raises:
        OSError: the folder cannot be read or written.
        Unwritable: as ``build`` says.
    """
    damaged: int | None = None
    bound = size_bound()
    while True:
        with _prepared(folder, name):
            table = _open(folder, opened)
            found = table is not None and table.identity() != damaged
            if table is None or not found:
                with atomic.replacing(folder) as draft:
                    draft.mkdir()
                    build(draft)
                table = opened(folder)
        if not found:
            _evict(folder.parent, bound, kept=folder)
            return table, False
        with suppress(OSError):  # that of another user
            os.utime(folder / INDEX)
        try:
            table.check()
            verify(table)
        except Damaged as reason:
            rank_zero_warn(f"{name}: {reason}; it is encoded anew")
            damaged = table.identity()
        else:
            return table, True


def find(folder: Path, opened: Callable[[Path], Arrays]) -> Arrays | None:
    """Open the table in a folder; None where there is none, or none that is whole and can be read."""
    try:
        if (table := _open(folder, opened)) is not None:
            table.check()
            with suppress(OSError):  # that of another user
                os.utime(folder / INDEX)
        return table
    except (OSError, Damaged):
        return None


@contextmanager
def _prepared(folder: Path, name: str) -> Iterator[None]:
    """Make the folder above and hold the lock; a table that is there is read without, where one may only read."""
    with ExitStack() as held:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(waiting_lock(_lock_of(folder), name))
        except OSError:
            if not (folder / INDEX).is_file():
                raise
        yield


def _open(folder: Path, opened: Callable[[Path], Arrays]) -> Arrays | None:
    try:
        return opened(folder)
    except FileNotFoundError:
        return None
    except Damaged as reason:
        rank_zero_warn(f"{reason}; it is encoded anew")
        return None


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def waiting_lock(path: Path, name: str | None = None) -> Iterator[bool]:
    """Hold the lock of a file; it is there only meanwhile.

    Args:
        path: the file.
        name: what is waited for, for the log; None does not wait, and yields False where another process has it.
    """
    since = time.monotonic()
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if take(lock) and is_named(lock, path):
                try:
                    yield True
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(lock)
        if name is None:
            yield False
            return
        if time.monotonic() - since > _SAID_AFTER:
            rank_zero_info(f"{name}: another process encodes this; waiting for it ({path})")
            since = float("inf")
        time.sleep(_POLL)


def _evict(root: Path, bound: float, kept: Path) -> None:
    """Remove drafts of killed processes, and of the other tables those that were not used for longest."""
    with suppress(OSError):  # what cannot be removed stays
        for draft in root.glob(".*.draft"):
            key = draft.name.removeprefix(".").partition(".")[0]  # before host and process
            with waiting_lock(_lock_of(root / key)) as is_free:
                if is_free:
                    atomic.remove(draft)
        tables = {path.parent: path.stat().st_mtime for path in root.glob(f"*/{INDEX}")}
        sizes = {table: sum(f.stat().st_size for f in table.iterdir()) for table in tables}
        total = sum(sizes.values())
        for table in sorted(tables, key=lambda table: tables[table]):
            if total <= bound:
                break
            with waiting_lock(_lock_of(table)) as is_free:
                if is_free and table != kept and not in_use(table):
                    atomic.remove(table)
                    total -= sizes[table]
