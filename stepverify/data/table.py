"""Encoded examples of one reader on disk: typed arrays that all processes of a machine map into memory."""

from __future__ import annotations

import hashlib
import zlib
from array import array
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from stepverify.data.arrays import MappedArrays, Unwritable, write_index
from stepverify.data.encode import Example
from stepverify.readers.base import ReasonCounter
from stepverify.readers.released import digest
from stepverify.records import InputError, Solution

_FLUSH = 512  # examples
# What an example holds, and the code of its numbers. The record is msgpack.
_COLUMNS = {
    "input_ids": "i", "positions": "i", "targets": "d", "lm_positions": "i", "weights": "d", "lm_weights": "d",
    "record": "B",
}  # fmt: skip
_encode_record = msgspec.msgpack.Encoder().encode
_decode_record = msgspec.msgpack.Decoder(Solution).decode


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
        facts = {
            "examples": self.num_examples, "tokens": self.num_tokens, "solutions": total,
            "left_out": left_out.plain(), "noted": noted.plain(), "problems": self._problems,
        }  # fmt: skip
        write_index(self.folder, facts, {name: (self._sizes[name], self._sums[name]) for name in self._sizes})

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


class ExampleTable(MappedArrays):
    """Examples in a folder, memory-mapped: N rows.

    Args:
        folder: written by :class:`TableWriter`.
        temporary: remove the folder when this object is gone.

    Raises:
        FileNotFoundError: nothing is there.
        Damaged: the index is not whole, or a file has another size than it says.

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
        super().__init__(folder, temporary=temporary)
        self.num_solutions, self.num_tokens = self.facts["solutions"], self.facts["tokens"]
        self.left_out, self.noted = _tally(self.facts["left_out"]), _tally(self.facts["noted"])
        self.problems: list[list[str]] = self.facts["problems"]
        self._arrays = {name: self.map(name, code) for name, code in _COLUMNS.items()}
        self._ends = self.map("ends", "q").reshape(-1, len(_COLUMNS))
        self.given, self.groups = self.map("given", "B"), self.map("groups", "i")

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

    def span(self, name: str, row: int) -> slice:
        """Return the place of a row's values in a column."""
        column = [*_COLUMNS].index(name)
        return slice(*self._ends[row : row + 2, column].tolist())

    def digest(self, *names: str) -> str:
        """Hash the values of columns in all rows."""
        found = hashlib.blake2b(digest_size=16)
        for name in names:
            found.update(np.ascontiguousarray(self._ends[:, [*_COLUMNS].index(name)]).data)
            found.update(self._arrays[name].data)
        return found.hexdigest()

    def gather(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Read the values of a column in (R,) rows, one row after the other."""
        counts = self.counts(name, rows)
        starts = self._ends[rows, [*_COLUMNS].index(name)]
        shift = np.repeat(starts - (counts.cumsum() - counts), counts)
        return self._arrays[name][shift + np.arange(len(shift))]

    def has(self, name: str) -> bool:
        """Tell whether any row has values in a column."""
        return len(self._arrays[name]) > 0


def _tally(plain: dict[str, dict[str, Any]]) -> ReasonCounter:
    return ReasonCounter({r: v["count"] for r, v in plain.items()}, {r: v["first"] for r, v in plain.items()})
