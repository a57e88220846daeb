"""The examples that batches are made of: entries that point to rows on disk, and weights that are computed for them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from stepverify.data.arrays import remove_with
from stepverify.data.encode import Example
from stepverify.data.reference import LogProbs
from stepverify.data.table import ExampleTable
from stepverify.data.targets import NEUTRAL

_COLUMNS = {"positions": "weights", "lm_positions": "lm_weights"}
_CHUNK = 1 << 14  # entries whose positions are in memory at the same time


class ExampleStore(Sequence[Example]):
    """E entries, each a row of an :class:`ExampleTable`; several entries may be one row.

    Kept in memory are row, length, problem and weights of each, 32 bytes; all else is mapped.

    Args:
        table: its rows are the entries.
        denominator: of the loss, where that is another than the sum of weights.

    Attributes:
        left_out: why solutions did not come into it.
        digests: of the texts of the problems that entries belong to → the first one's id.
        lengths: (E,) tokens of each.
        groups: (E,) number of the problem that each belongs to.
    """

    def __init__(self, table: ExampleTable, denominator: Callable[[Example], float | None] | None = None) -> None:
        self.table, self.left_out = table, table.left_out
        self._parts: list[tuple[ExampleTable, np.ndarray]] = []
        self._numbers: dict[Hashable, int] = {}
        self.digests: dict[str, str] = {}
        self.lengths, self.groups = np.empty(0, np.int32), np.empty(0, np.int32)
        self._factors: np.ndarray | None = None  # (3,) of the classes of targets
        self._times: dict[str, np.memmap] = {}  # how often each position of each entry is read in its group
        self._starts: dict[str, np.ndarray] = {}  # (E + 1,) where those of an entry begin
        self._denominators: np.ndarray | None = None  # (E,) nan: the sum of its weights
        self._weights: np.ndarray | None = None
        self._reference: LogProbs | None = None
        self._add(table, np.arange(len(table)))
        if denominator is not None:
            given = [denominator(example) for example in self]
            self._denominators = np.array([np.nan if value is None else value for value in given])

    def extend(self, other: ExampleStore, rows: np.ndarray) -> None:
        """Add rows of another one's table, some perhaps several times."""
        self._add(other.table, rows)
        if self._denominators is not None:
            self._denominators = np.append(self._denominators, np.full(len(rows), np.nan))

    def _add(self, table: ExampleTable, rows: np.ndarray) -> None:
        assert not self._times
        own = table.groups[rows]
        numbers = np.zeros(len(table.problems), np.int32)
        found, first = np.unique(own, return_index=True)
        for problem in found[np.argsort(first)].tolist():  # in the order of the entries
            name, text = table.problems[problem]
            if name not in self._numbers:
                self.digests.setdefault(text, name)
            numbers[problem] = self._numbers.setdefault(name, len(self._numbers))
        self._parts.append((table, rows))
        self.groups = np.append(self.groups, numbers[own])
        self.lengths = np.append(self.lengths, table.counts("input_ids", rows).astype(np.int32))
        self._weights = None

    # ── weights ───────────────────────────────────────────────────────────────────────────────────

    def share_weights(self, times: Iterator[tuple[int, np.ndarray, np.ndarray]]) -> None:
        """Divide the weight of each position of each entry by times.

        Args:
            times: for each entry its index, and how often its positions and its LM positions are read.
        """
        folder = Path(tempfile.mkdtemp(prefix="stepverify-"))
        remove_with(self, folder)
        found = {}
        for name in ("positions", "lm_positions"):
            counts = np.concatenate([table.counts(name, rows) for table, rows in self._parts])
            self._starts[name] = np.append(0, counts.cumsum())
            np.zeros(self._starts[name][-1], np.int32).tofile(folder / name)
            found[name] = _mapped(folder / name, "r+")
        for entry, own, lm in times:
            for name, values in (("positions", own), ("lm_positions", lm)):
                start = self._starts[name][entry]
                found[name][start : start + len(values)] = values
        self._times, self._weights = found, None

    def scale_classes(self, factors: np.ndarray) -> None:
        """Multiply the weight of each position by the factor of its class; LM positions stay as they are.

        Args:
            factors: (3,) of incorrect, correct and neutral targets.
        """
        self._factors = factors if self._factors is None else self._factors * factors
        self._weights = None

    def class_sums(self) -> np.ndarray:
        """Sum the weights of positions by class; (3,) for incorrect, correct and neutral targets."""
        sums = np.zeros(3)
        for _, _, weights, classes in self._chunks("positions"):
            sums += np.bincount(classes, weights, minlength=3)
        return sums

    @property
    def weights(self) -> np.ndarray:
        """(E, 2) weight of the positions of each, or its denominator; and of its LM positions."""
        if self._weights is None:
            found = np.empty((len(self), 2))
            for column, name in enumerate(("positions", "lm_positions")):
                for entries, counts, weights, _ in self._chunks(name):
                    owner = np.repeat(np.arange(len(counts)), counts)
                    found[entries, column] = np.bincount(owner, weights, minlength=len(counts))
            if self._denominators is not None:
                known = ~np.isnan(self._denominators)
                found[known, 0] = self._denominators[known]
            self._weights = found
        return self._weights

    def _chunks(self, name: str) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield entries, how many positions each has, and the weight and class of every position."""
        offset = 0
        for table, rows in self._parts:
            for at in range(0, len(rows), _CHUNK):
                some = rows[at : at + _CHUNK]
                entries = slice(offset + at, offset + at + len(some))
                counts = table.counts(name, some)
                weights = self._own_weights(table, name, some, counts, entries)
                classes = np.empty(0, np.int64)
                if name == "positions" and table.has("targets"):
                    classes = classes_of(table.gather("targets", some))
                    if self._factors is not None:
                        weights = self._factors[classes] * weights
                yield entries, counts, weights, classes
            offset += len(rows)

    def _own_weights(
        self, table: ExampleTable, name: str, rows: np.ndarray, counts: np.ndarray, entries: slice
    ) -> np.ndarray:
        weights = np.ones(counts.sum())
        column = _COLUMNS[name]
        if table.has(column):
            given = np.repeat(table.counts(column, rows) == counts, counts)
            weights[given] = table.gather(column, rows)
        if self._times:
            starts = self._starts[name]
            weights /= self._times[name][starts[entries.start] : starts[entries.stop]]
        return weights

    # ── reading ───────────────────────────────────────────────────────────────────────────────────

    @property
    def has_reference(self) -> bool:
        """Tell whether the log-probabilities of a reference model are attached."""
        return self._reference is not None

    def attach(self, reference: LogProbs) -> None:
        """Give each example the log-probabilities of a reference model."""
        assert len(self._parts) == 1
        self._reference = reference

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index, table, row = self._find(index)
        example = table.read(row)
        if self._times:
            for name, column in _COLUMNS.items():
                given, starts = getattr(example, column), self._starts[name]
                weights = np.ones(len(getattr(example, name))) if given is None else np.array(given)
                setattr(example, column, (weights / self._times[name][starts[index] : starts[index + 1]]).tolist())
        if self._factors is not None and example.positions:
            weights = np.ones(len(example.positions)) if example.weights is None else np.array(example.weights)
            example.weights = (self._factors[classes_of(np.array(example.targets))] * weights).tolist()
        if self._denominators is not None and not np.isnan(value := self._denominators[index]):
            example.denominator = float(value)
        if self._reference is not None:
            example.reference = self._reference.values[table.span("positions", row)].tolist()
        return example

    def _find(self, index: int) -> tuple[int, ExampleTable, int]:
        if index < 0:
            index += len(self)
        place = index
        for table, rows in self._parts:
            if 0 <= place < len(rows):
                return index, table, int(rows[place])
            place -= len(rows)
        raise IndexError(index)

    @property
    def sequences(self) -> Sequence[list[int]]:
        """The token ids of each, read when they are asked for."""
        return _Ids(self)

    @property
    def problems(self) -> Collection[Hashable]:
        """Ids of the problems that entries belong to."""
        return self._numbers.keys()

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes that are not forked: they map the same files."""
        return self.__dict__ | {"_times": {name: str(times.filename) for name, times in self._times.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state | {"_times": {name: _mapped(Path(path), "r") for name, path in state["_times"].items()}}


class _Ids(Sequence[list[int]]):
    def __init__(self, examples: ExampleStore) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:
        _, table, row = self.examples._find(index)
        return table.input_ids(row)


def classes_of(targets: np.ndarray) -> np.ndarray:
    """Give the class of each target: 0 incorrect, 1 correct (from 1/2 on), 2 neutral."""
    return np.where(targets == NEUTRAL, 2, targets >= 0.5).astype(int)


def _mapped(path: Path, mode: Any) -> np.memmap:
    if not path.stat().st_size:
        path.write_bytes(bytes(4))  # an empty file cannot be mapped; the number is nobody's
    return np.memmap(path, np.int32, mode)
