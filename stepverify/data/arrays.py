"""Map typed arrays of a folder into memory, with an index of their sizes and checksums."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import weakref
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stepverify import atomic

INDEX = "index.json"


class Unwritable(Exception):
    """Say why a folder does not take what is written."""


class Damaged(Exception):
    """Say why a folder does not hold what was written."""


class MappedArrays:
    """Arrays in a folder, memory-mapped.

    The folder is locked for as long as this object lives, so that nobody takes it away while it is in use.

    Args:
        folder: with an index by :func:`write_index`.
        temporary: remove the folder when this object is gone.

    Raises:
        FileNotFoundError: nothing is there.
        Damaged: the index is not whole. :meth:`check` reads the files too.

    Attributes:
        facts: what the index says besides the files.
    """

    def __init__(self, folder: Path, *, temporary: bool = False) -> None:
        self.folder, self._lock = folder, os.open(folder / INDEX, os.O_RDONLY)
        weakref.finalize(self, os.close, self._lock)
        if temporary:
            remove_with(self, folder)
        _shared(self._lock)
        self.facts = _read_index(folder / INDEX)
        self._files: dict[str, list[int]] = self.facts.pop("files")

    def map(self, name: str, code: str) -> np.ndarray:
        """Map one array of numbers of a type code.

        Raises:
            Damaged: its file has another size than the index says.
        """
        path, size = self.folder / name, self._files[name][0]
        try:
            found = path.stat().st_size
        except FileNotFoundError:
            raise Damaged(f"{path} is missing") from None
        if found != size:
            raise Damaged(f"{path} has {found:,} bytes, {size:,} were written")
        # An array of its own: indexing a memmap costs as much as reading an example.
        return np.asarray(np.memmap(path, code, "r")) if size else np.empty(0, code)

    def check(self) -> None:
        """Read all files and compare their checksums.

        Raises:
            Damaged: one of them has changed.
        """
        for name, (_, wanted) in self._files.items():
            value = 0
            with (self.folder / name).open("rb") as file:
                while data := file.read(1 << 22):
                    value = zlib.crc32(data, value)
            if value != wanted:
                raise Damaged(f"{self.folder / name} has changed since it was written")

    def size(self) -> int:
        """Bytes on disk."""
        return sum(size for size, _ in self._files.values())

    def identity(self) -> int:
        """Tell these arrays from those that replace them in their folder."""
        return os.fstat(self._lock).st_ino

    def __reduce__(self) -> tuple[Any, ...]:
        """For worker processes that are not forked: they map the same files."""
        return type(self), (self.folder,)


def write_index(folder: Path, facts: Mapping[str, Any], files: Mapping[str, tuple[int, int]]) -> None:
    """Write the index, after all files.

    Args:
        folder: of the files.
        facts: plain values to keep with them.
        files: name → bytes and checksum.

    Raises:
        Unwritable: the disk is full or the folder may not be written.
    """
    described = json.dumps({**facts, "byteorder": sys.byteorder, "files": files}, ensure_ascii=False).encode()
    try:
        (folder / INDEX).write_bytes(b"%08x\n%s" % (zlib.crc32(described), described))
    except OSError as error:
        raise Unwritable(error.strerror) from error


def _read_index(path: Path) -> dict[str, Any]:
    value, _, described = path.read_bytes().partition(b"\n")
    if value != b"%08x" % zlib.crc32(described):
        raise Damaged(f"{path} is not whole")
    facts: dict[str, Any] = json.loads(described)
    if facts["byteorder"] != sys.byteorder:
        raise Damaged(f"{path} is of a machine with another byte order")
    return facts


def _shared(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
    except OSError:  # a file system without locks; nothing is removed there (see :func:`in_use`)
        return


def in_use(folder: Path) -> bool:
    """Tell whether a process has the arrays of this folder open, or may have."""
    try:
        lock = os.open(folder / INDEX, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def remove_with(owner: object, folder: Path) -> None:
    """Remove a folder when its owner is gone; a forked worker leaves it to the process that called this."""
    weakref.finalize(owner, _remove, folder, os.getpid())


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        atomic.remove(folder)
