"""Store encoded examples on disk.

A hundred samples per problem then take only a few numbers each in memory.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from array import array
from collections.abc import Collection, Hashable, Sequence
from typing import Any, overload

import numpy as np

from stepverify.data.encode import Example
from stepverify.readers.base import ReasonCounter
from stepverify.readers.released import digest


class Shelf(Sequence[Example]):
    """Store a sequence of examples in a temporary file.

    It disappears with the process.

    Memory holds offset, length, weights and group of each entry, 44 bytes. Several entries may be one example. The file
    is in the folder that Python's ``tempfile`` chooses (``TMPDIR``).

    Attributes:
        left_out: why solutions were left out.
        digests: digest of each problem's text → id of the first problem with that text.
    """

    def __init__(self) -> None:
        self.left_out = ReasonCounter()
        self.digests: dict[str, str] = {}
        self._file = tempfile.NamedTemporaryFile(prefix="stepverify-", suffix=".examples")  # noqa: SIM115
        self._end = 0
        self._places, self._sizes = array("q"), array("i")
        self._lengths, self._groups = array("i"), array("i")
        self._weights = array("d")
        self._numbers: dict[Hashable, int] = {}

    def append(self, example: Example) -> None:
        """Append an example."""
        place, size = self._write(example)
        self._places.append(place)
        self._sizes.append(size)
        self._lengths.append(len(example.input_ids))
        problem_id = example.record.problem_id
        if problem_id not in self._numbers:
            self.digests.setdefault(digest(example.record.problem), problem_id)
        self._groups.append(self._numbers.setdefault(problem_id, len(self._numbers)))
        self._weights.extend(example.weight())

    def repeat(self, index: int, times: int) -> None:
        """Append an entry ``times`` more times."""
        for column in (self._places, self._sizes, self._lengths, self._groups):
            column.extend(column[index : index + 1] * times)
        self._weights.extend(self._weights[2 * index : 2 * index + 2] * times)

    def __setitem__(self, index: int, example: Example) -> None:
        """Replace an example; its group stays."""
        self._places[index], self._sizes[index] = self._write(example)
        self._lengths[index] = len(example.input_ids)
        self._weights[2 * index], self._weights[2 * index + 1] = example.weight()

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place, size = self._places[index], self._sizes[index]
        self._file.flush()
        # Safe, as this process wrote the file.
        return pickle.loads(os.pread(self._file.fileno(), size, place))

    @property
    def lengths(self) -> np.ndarray:
        """Return the (E,) numbers of tokens."""
        return np.array(self._lengths)

    @property
    def sequences(self) -> Sequence[list[int]]:
        """Return the token ids of each example, read on access."""
        return _Ids(self)

    @property
    def problems(self) -> Collection[Hashable]:
        """Return the ids of the problems."""
        return self._numbers.keys()

    @property
    def groups(self) -> np.ndarray:
        """Return the (E,) number of each example's problem."""
        return np.array(self._groups)

    @property
    def weights(self) -> np.ndarray:
        """Return (E, 2) weights of scored positions and LM positions."""
        return np.array(self._weights).reshape(-1, 2)

    def _write(self, example: Example) -> tuple[int, int]:
        place, size = self._end, self._file.write(pickle.dumps(example, pickle.HIGHEST_PROTOCOL))
        self._end += size
        return place, size

    def __getstate__(self) -> dict[str, Any]:
        """Replace the file by its name, for workers that are not forked."""
        self._file.flush()
        return self.__dict__ | {"_file": self._file.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state | {"_file": open(state["_file"], "rb")}  # noqa: SIM115


class _Ids(Sequence[list[int]]):
    def __init__(self, examples: Shelf) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:
        return self.examples[index].input_ids
