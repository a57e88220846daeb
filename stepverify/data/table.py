"""Encoded examples of one reader on disk: typed arrays that all processes of a machine map into memory."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import weakref
import zlib
from array import array
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from stepverify import atomic
from stepverify.data.encode import Example
from stepverify.readers.base import ReasonCounter
from stepverify.readers.released import digest
from stepverify.records import InputError, Solution

INDEX = "index.json"
_FLUSH = 512  # examples
# What an example holds, and the code of its numbers. The record is msgpack.
_COLUMNS = {
    "input_ids": "i", "positions": "i", "targets": "d", "lm_positions": "i", "weights": "d", "lm_weights": "d",
    "record": "B",
}  # fmt: skip
_encode_record = msgspec.msgpack.Encoder().encode
_decode_record = msgspec.msgpack.Decoder(Solution).decode


class Unwritable(Exception):
    """Say why a folder does not take the examples."""


class Damaged(Exception):
    """Say why a folder does not hold what was written."""


class TableWriter:
    """Write examples into a folder, for :class:`ExampleTable` to read.

    Args:
        folder: an empty one.

    Raises:
        Unwritable: by each method, where the disk is full or the folder may not be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.num_examples, self.num_tokens = folder, 0, 0
        names = [*_COLUMNS, "ends", "given", "groups"]
        self._sums, self._sizes = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        self._ends = [0] * len(_COLUMNS)
        self._numbers: dict[str, int] = {}
        self._problems: list[tuple[str, str]] = []
        self._buffers: dict[str, list[bytes]] = {name: [] for name in names}
        self._buffers["ends"].append(array("q", self._ends).tobytes())

    def add(self, example: Example) -> None:
        """Add one.

        Raises:
            InputError: its record holds values that no file of records takes.
        """
        record, given = example.record, 0
        for column, (name, code) in enumerate(_COLUMNS.items()):
            if name == "record":
                data, size = _packed(record), 1
            else:
                value = getattr(example, name)
                given |= (value is not None) << column
                data, size = array(code, value or ()).tobytes(), array(code).itemsize
            self._buffers[name].append(data)
            self._ends[column] += len(data) // size
        if (number := self._numbers.setdefault(record.problem_id, len(self._numbers))) == len(self._problems):
            self._problems.append((record.problem_id, digest(record.problem)))
        self._buffers["ends"].append(array("q", self._ends).tobytes())
        self._buffers["given"].append(bytes([given]))
        self._buffers["groups"].append(array("i", [number]).tobytes())
        self.num_examples += 1
        self.num_tokens += len(example.input_ids)
        if self.num_examples % _FLUSH == 0:
            self._flush()

    def finish(self, total: int, left_out: ReasonCounter, noted: ReasonCounter) -> None:
        """Write what is left, and an index.

        Args:
            total: solutions, those that were left out included.
            left_out: why these were.
            noted: what else the reader has met.
        """
        self._flush()
        described = json.dumps({
            "examples": self.num_examples, "tokens": self.num_tokens, "solutions": total, "byteorder": sys.byteorder,
            "left_out": left_out.plain(), "noted": noted.plain(), "problems": self._problems,
            "files": {name: [self._sizes[name], self._sums[name]] for name in self._sizes},
        }, ensure_ascii=False).encode()  # fmt: skip
        try:
            (self.folder / INDEX).write_bytes(b"%08x\n%s" % (zlib.crc32(described), described))
        except OSError as error:
            raise Unwritable(error.strerror) from error

    def _flush(self) -> None:
        try:
            for name, pieces in self._buffers.items():
                data = b"".join(pieces)
                with (self.folder / name).open("ab") as file:
                    file.write(data)
                self._sizes[name] += len(data)
                self._sums[name] = zlib.crc32(data, self._sums[name])
                pieces.clear()
        except OSError as error:
            raise Unwritable(error.strerror) from error


def _packed(record: Solution) -> bytes:
    try:
        return _encode_record(record)
    except (TypeError, OverflowError, ValueError) as error:
        raise InputError(f"solution {record.id}: cannot be kept on disk: {error}; `meta` takes JSON values") from None


class ExampleTable:
    """Examples in a folder, memory-mapped: N rows.

    It is locked for as long as this object lives, so that nobody takes a table away that is in use.

    Args:
        folder: written by :class:`TableWriter`.
        temporary: remove the folder when this object is gone.

    Raises:
        FileNotFoundError: nothing is there.
        Damaged: the index is not whole, or a file has another size than it says. :meth:`check` reads the files too.

    Attributes:
        left_out: why the reader's other solutions are not there.
        noted: what else the reader has met.
        num_solutions: read, those that were left out included.
        num_tokens: of all rows.
        problems: id, and digest of the text, of the problems that rows belong to.
        groups: (N,) number of the problem that each row belongs to.
        given: (N,) bits of the fields that are not None.
    """

    def __init__(self, folder: Path, *, temporary: bool = False) -> None:
        self.folder, self._lock = folder, os.open(folder / INDEX, os.O_RDONLY)
        weakref.finalize(self, os.close, self._lock)
        if temporary:
            remove_with(self, folder)
        _shared(self._lock)
        facts = _read_index(folder / INDEX)
        self._files: dict[str, list[int]] = facts["files"]
        self.num_solutions, self.num_tokens = facts["solutions"], facts["tokens"]
        self.left_out, self.noted = _tally(facts["left_out"]), _tally(facts["noted"])
        self.problems: list[list[str]] = facts["problems"]
        self._arrays = {name: self._map(name, code) for name, code in _COLUMNS.items()}
        self._ends = self._map("ends", "q").reshape(-1, len(_COLUMNS))
        self.given, self.groups = self._map("given", "B"), self._map("groups", "i")

    def _map(self, name: str, code: str) -> np.ndarray:
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
        """Tell this table from one that replaces it in its folder."""
        return os.fstat(self._lock).st_ino

    def __len__(self) -> int:
        return len(self.groups)

    def read(self, row: int) -> Example:
        """Read one example."""
        starts, stops = self._ends[row : row + 2].tolist()
        given = self.given[row]
        values: dict[str, Any] = {}
        for column, (name, array_) in enumerate(self._arrays.items()):
            start, stop = starts[column], stops[column]
            if name == "record":
                values[name] = _decode_record(array_[start:stop].data)
            elif start == stop:
                values[name] = [] if given >> column & 1 else None
            else:
                values[name] = array_[start:stop].tolist()
        return Example(**values)

    def input_ids(self, row: int) -> list[int]:
        """Read the token ids of one example."""
        (start, *_), (stop, *_) = self._ends[row : row + 2].tolist()
        return self._arrays["input_ids"][start:stop].tolist()

    def counts(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Count the values of a column in each of (R,) rows."""
        column = [*_COLUMNS].index(name)
        return self._ends[rows + 1, column] - self._ends[rows, column]

    def gather(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Read the values of a column in (R,) rows, one row after the other."""
        counts = self.counts(name, rows)
        starts = self._ends[rows, [*_COLUMNS].index(name)]
        shift = np.repeat(starts - (counts.cumsum() - counts), counts)
        return self._arrays[name][shift + np.arange(len(shift))]

    def has(self, name: str) -> bool:
        """Tell whether any row has values in a column."""
        return len(self._arrays[name]) > 0

    def __reduce__(self) -> tuple[Any, ...]:
        """For worker processes that are not forked: they map the same files."""
        return ExampleTable, (self.folder,)


def _read_index(path: Path) -> dict[str, Any]:
    value, _, described = path.read_bytes().partition(b"\n")
    if value != b"%08x" % zlib.crc32(described):
        raise Damaged(f"{path} is not whole")
    facts: dict[str, Any] = json.loads(described)
    if facts["byteorder"] != sys.byteorder:
        raise Damaged(f"{path} is of a machine with another byte order")
    return facts


def _tally(plain: dict[str, dict[str, Any]]) -> ReasonCounter:
    return ReasonCounter({r: v["count"] for r, v in plain.items()}, {r: v["first"] for r, v in plain.items()})


def _shared(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
    except OSError:  # a file system without locks; nothing is removed there (see :func:`in_use`)
        return


def in_use(folder: Path) -> bool:
    """Tell whether a process has a table of this folder open, or may have."""
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
