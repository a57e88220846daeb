"""Encode solutions to disk, and weight them before they are batched."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from stepverify.atomic import remove
from stepverify.data.arrays import Damaged, Unwritable
from stepverify.data.cache import find_or_build
from stepverify.data.encode import Example, LeftOut, SolutionEncoder
from stepverify.data.fingerprint import DataKey, Unknown, key_of
from stepverify.data.store import ExampleStore
from stepverify.data.table import ExampleTable, TableWriter
from stepverify.readers import Reader
from stepverify.readers.base import ReasonCounter, once
from stepverify.records import InputError, Solution

_CLASSES = ("incorrect", "correct", "neutral")
_AHEAD = 1024  # solutions whose texts are tokenized in one call
_COMPARED = 16  # solutions that are encoded again before a table of an earlier run is read
_PARALLEL = "TOKENIZERS_PARALLELISM"
_given = os.environ.get(_PARALLEL)


@dataclass(frozen=True, kw_only=True)
class ClassWeights:
    """Weight scored positions in the training loss by their label.

    The loss is divided by the sum of the weights, so only their proportions matter. A soft target belongs to the nearer
    class, ``correct`` from 1/2 on.

    Attributes:
        incorrect: weight of an incorrect step, or of a position in an incorrect solution.
        correct: weight of a correct step or of a position in a correct solution.
        neutral: weight of a neutral step, if neutral is a class of its own.
    """

    incorrect: float = 1.0
    correct: float = 1.0
    neutral: float = 1.0

    def check(self) -> None:
        """Check the weights before data is read.

        Raises:
            InputError: a weight that is not above 0.
        """
        for name in _CLASSES:
            if not 0.0 < getattr(self, name) < float("inf"):
                raise InputError(f"data.class_weights.{name}: expected a weight above 0, got {getattr(self, name)}")


def encode_all(
    reader: Reader, encode: Callable[[Solution], Example], name: str, *, encoder: SolutionEncoder | None = None,
    options: Mapping[str, Any] | Unknown | None = None, cache: Path | None = None,
    denominator: Callable[[Example], float | None] | None = None,
) -> ExampleStore:  # fmt: skip
    """Encode a reader's solutions, or open their cached examples.

    Solutions left out are counted by reason and logged, also those of the run that wrote the cache.

    Args:
        reader: of the solutions.
        encode: one of them.
        name: of the data, for messages.
        encoder: that ``encode`` uses; it tokenizes ahead.
        options: what ``encode`` depends on besides, or why that is not known.
        cache: folder in which examples are kept; None keeps them in a temporary one, for this process alone.
        denominator: of the loss, as in :class:`ExampleStore`.

    Raises:
        InputError: bad data, nothing left, or no room on any disk.
    """
    work = _Encoding(reader, encode, name, encoder)
    table, where = work.kept(cache, options) if cache is not None else (None, "")
    store = ExampleStore(table or work.temporary(), denominator)
    table = store.table
    rank_zero_info(
        f"{name}: {len(table):,} of {table.num_solutions:,} solutions, {table.num_tokens:,} tokens"
        + (f"; left out: {table.left_out}" if table.left_out else "")
        + (f"; noted: {table.noted}" if table.noted else "")
        + where
    )
    return store


class _Encoding:
    """One reader's solutions, to be encoded where that has not been done."""

    def __init__(
        self, reader: Reader, encode: Callable[[Solution], Example], name: str, encoder: SolutionEncoder | None
    ) -> None:
        self.reader, self.encode, self.name, self.encoder = reader, encode, name, encoder
        self._failed: OSError | None = None  # of reader or encoder, not of the disk that is written to

    def kept(self, cache: Path, options: Mapping[str, Any] | Unknown | None) -> tuple[ExampleTable | None, str]:
        """Open or build the table in the cache; None where there can be none, which is said."""
        try:
            if self.encoder is None or options is None or isinstance(options, Unknown):
                raise options if isinstance(options, Unknown) else Unknown("nothing says what the encoding depends on")
            data = DataKey(self.reader, self.name)
            folder = cache / key_of(data, self.encoder, options)
            table, found = find_or_build(
                folder, lambda draft: self.build(draft, data), self.compare, self.name, ExampleTable
            )
            return table, f"; {'read from' if found else 'kept in'} {folder}"
        except Unknown as reason:
            rank_zero_info(f"{self.name}: encoded examples are not kept: {reason}")
        except (OSError, Unwritable) as error:
            if error is self._failed:
                raise
            said = getattr(error, "strerror", None) or error
            rank_zero_warn(f"data.cache: {cache}: {said}; examples of {self.name} are encoded into a temporary folder")
        return None, ""

    def temporary(self) -> ExampleTable:
        """Encode into a folder that is removed with the table."""
        folder = Path(tempfile.mkdtemp(prefix="stepverify-"))
        try:
            self.build(folder)
        except BaseException as error:
            remove(folder)
            if isinstance(error, Unwritable):
                raise InputError(f"{self.name}: {folder}: {error}; choose another folder by TMPDIR") from error
            raise
        return ExampleTable(folder, temporary=True)

    def build(self, folder: Path, data: DataKey | None = None) -> None:
        """Write the table of all solutions."""
        writer, left_out, total = TableWriter(folder), ReasonCounter(), 0
        name = f"{self.name}: {type(self.reader).__name__}"
        try:
            for record in self._ahead(data.watched() if data else once(self.reader.solutions(), name)):
                total += 1
                try:
                    example = self.encode(record)
                except LeftOut as reason:
                    left_out.note(str(reason), record.id)
                else:
                    writer.add(example)
        except OSError as error:
            self._failed = error
            raise
        left_out.add(self.reader.left_out)
        total += self.reader.left_out.total()
        if not writer.num_examples:
            raise InputError(
                f"{self.name}: none of {total} solutions of {type(self.reader).__name__} can be used: "
                + (str(left_out) or _why_empty(self.reader))
            )
        if data is not None and not data.is_current():
            raise Unwritable("the data has changed while it was read")
        writer.finish(total, left_out, self.reader.noted)

    def compare(self, table: ExampleTable) -> None:
        """Encode some of the solutions of a table again.

        Raises:
            Damaged: one is encoded otherwise now.
        """
        for row in np.unique(np.linspace(0, len(table) - 1, _COMPARED).astype(int)).tolist():
            kept = table.read(row)
            try:
                now = self.encode(kept.record)
            except LeftOut:
                now = None
            if now != kept:
                raise Damaged(f"{table.folder}: solution {kept.record.id} is encoded otherwise now")

    def _ahead(self, records: Iterable[Solution]) -> Iterator[Solution]:
        records = iter(records)
        while some := list(islice(records, _AHEAD)):
            if self.encoder is not None:
                with _all_cores():
                    self.encoder.read_ahead(some)
            yield from some


@contextmanager
def _all_cores() -> Iterator[None]:
    """Let tokenizers use threads, unless the user says whether; processes that are forked later must not."""
    if _given is None:
        os.environ[_PARALLEL] = "true"
    try:
        yield
    finally:
        if _given is None:
            os.environ[_PARALLEL] = "false"


def add_lm_examples(examples: ExampleStore, lm: ExampleStore, ratio: float, seed: int) -> None:
    """Add ``ratio`` LM examples per example.

    Cobbe et al. 2021, section 4.2, take 1.

    Each is repeated equally often, up to one; ``seed`` determines which are repeated once more. Repetitions in one
    batch are computed once and weigh more.
    """
    total = max(1, round(ratio * len(examples)))
    order = np.random.default_rng(seed).permutation(len(lm))
    times, more = divmod(total, len(lm))
    examples.extend(lm, np.repeat(order, times + (np.arange(len(order)) < more)))


def weigh(examples: ExampleStore, given: ClassWeights | None) -> None:
    """Multiply the weight of each position by that of its class.

    Args:
        examples: changed in place; LM positions keep their weights.
        given: the class weights; None gives all classes that occur equal total weight and keeps the overall total.

    Raises:
        InputError: None is given, and all targets are of one class.
    """
    if given is not None:
        factors = np.array([getattr(given, name) for name in _CLASSES])
    else:
        sums = examples.class_sums()
        if np.count_nonzero(sums) < 2:
            raise InputError(f"data.class_weights: balanced, but every label is {_CLASSES[sums.argmax()]}")
        factors = sums.sum() / np.count_nonzero(sums) / np.maximum(sums, 1e-9)
    examples.scale_classes(factors)


def _why_empty(reader: Any) -> str:
    """Say why a reader without a left-out record gave none."""
    fold = getattr(reader, "fold", "all")
    if fold == "all":
        return "the reader is empty"
    return (
        f"no problem is in fold {fold!r}, which a hash of each problem's id decides; give more problems, or read other "
        "ones with fold: all"
    )
