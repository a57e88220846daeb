"""Read rows of files and Hub data sets, and rename their columns.

Files are JSON Lines, JSON arrays, CSV or Parquet; all but Parquet may be compressed (``.gz``).
"""

from __future__ import annotations

import csv
import gzip
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepverify.decoding import decode_text
from stepverify.foreign import name_reader
from stepverify.jsonl import read_json_lines
from stepverify.records import InputError

_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_LOCAL = (".", "/", "~")  # ids of the Hub begin with none of them
Row = tuple[str, Any]


def rows(path: str, split: str, name: str | None = None, revision: str | None = None) -> Iterator[Row]:
    """Yield ``(where, row)`` of a file or a Hub data set.

    Args:
        path: a local file; a Hub id, or a folder that is laid out like one, which are loaded with ``datasets``.
        split: split of the Hub data set.
        name: configuration of the Hub data set; None is its only or default one.
        revision: branch, tag or commit of the Hub data set.

    Raises:
        InputError: neither exists, or a file is not of its format.
    """
    if Path(path).is_file():
        yield from _read_file(Path(path))
    elif not Path(path).is_dir() and (path.endswith((*_SUFFIXES, ".gz")) or path.startswith(_LOCAL)):
        raise InputError(f"{path}: no such file")
    else:
        yield from _read_hub(path, split, name, revision)


def is_records(path: str) -> bool:
    """Tell whether a path is of the project's own format: a JSON Lines file, or a folder.

    False for files of other formats and ids of the Hub.
    """
    place = Path(path)
    if place.is_dir() or _kind(place) == ".jsonl":
        return True
    return _kind(place) not in _SUFFIXES and (place.exists() or path.startswith(_LOCAL))


def _kind(file: Path) -> str:
    return Path(file.stem).suffix if file.suffix == ".gz" else file.suffix


def _read_file(file: Path) -> Iterator[Row]:
    kind = _kind(file)
    try:
        if kind == ".json":
            yield from _read_array(file)
        elif kind in (".csv", ".tsv"):
            yield from _read_csv(file, "," if kind == ".csv" else "\t")
        elif kind == ".parquet":
            yield from _read_parquet(file)
        else:
            yield from read_json_lines(file)
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{file}: not readable as {kind}: {error}") from None


def _open(file: Path) -> Any:
    options: dict[str, Any] = {"encoding": "utf-8-sig", "newline": ""}
    return gzip.open(file, "rt", **options) if file.suffix == ".gz" else file.open(**options)


def _read_array(file: Path) -> Iterator[Row]:
    """Yield ``(file[index], row)`` of a JSON array.

    A file of lines with this name is read as JSON Lines.
    """
    with _open(file) as opened:
        text = opened.read()
    if not text.lstrip().startswith("["):
        yield from read_json_lines(file)
        return
    if not (found := decode_text(text, file)):
        raise InputError(f"{file}: the array is empty")
    for index, data in enumerate(found):
        yield f"{file}[{index}]", data


def _read_csv(file: Path, delimiter: str) -> Iterator[Row]:
    """Yield ``(file:line, row)``; an empty cell is None."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # solutions may be longer than 128 KiB
    with _open(file) as opened:
        reader = csv.reader(opened, delimiter=delimiter, strict=True)
        try:
            header = next(reader, None)
            if not header:
                raise InputError(f"{file}: the file is empty")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise InputError(
                        f"{file}:{reader.line_num}: expected {len(header)} values, one per column, got {len(cells)}"
                    )
                yield f"{file}:{reader.line_num}", {k: cell or None for k, cell in zip(header, cells, strict=True)}
        except csv.Error as error:
            raise InputError(f"{file}:{reader.line_num}: not CSV: {error}") from None


def _read_parquet(file: Path) -> Iterator[Row]:
    """Yield ``(file[index], row)``."""
    import pyarrow
    import pyarrow.parquet

    try:
        index = 0
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
            for row in batch.to_pylist():
                yield f"{file}[{index}]", row
                index += 1
    except pyarrow.ArrowException as error:
        raise InputError(f"{file}: not Parquet: {str(error).splitlines()[0]}") from None


def _read_hub(path: str, split: str, name: str | None, revision: str | None) -> Iterator[Row]:
    from datasets import load_dataset

    try:
        found = load_dataset(path, name, split=split, revision=revision)
    except Exception as error:  # datasets raises many kinds, all for unavailable data
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: no such file, and no such data set on the Hub: {said}") from None
    for row, data in enumerate(found):
        yield f"{path}[{split}][{row}]", data


class Columns:
    """Rename the columns of rows to the fields of a reader.

    Args:
        columns: their column → our field, ``{question: problem}``. A field with a dot is an entry of an object,
            ``{level: meta.level}``. Columns that are fields already need no entry, others are not read.
        reader: name of the reader, for messages.
        fields: field → whether every row must have it.
        objects: fields that are objects.

    Raises:
        InputError: no such field, or two columns for one.
    """

    def __init__(
        self, columns: Mapping[str, str] | None, reader: str, fields: Mapping[str, bool], objects: Sequence[str] = ()
    ) -> None:
        self.columns, self.reader, self.fields = dict(columns or {}), reader, fields
        for theirs, ours in self.columns.items():
            if ours not in fields and (ours.partition(".")[0] not in objects or not ours.partition(".")[2]):
                turned = f"; it is {{their column: our field}}, here {{{ours}: {theirs}}}" if theirs in fields else ""
                known = [*fields, *(f"{name}.…" for name in objects)]
                raise InputError(f"columns: {theirs}: {ours!r} is no field of {reader}, which has {known}{turned}")
        if twice := [ours for ours in self.columns.values() if [*self.columns.values()].count(ours) > 1]:
            raise InputError(f"columns: {twice[0]!r} is given by two columns")

    def __call__(self, where: str, row: Any) -> tuple[dict[str, Any], list[str]]:
        """Return the fields of a row, and the columns that are not read.

        Raises:
            InputError: no object, or columns are missing; all of them are named.
        """
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected an object, got {row!r:.80}")
        taken = {*self.columns.values()}
        found = {k: v for k, v in row.items() if k in self.fields and k not in taken and k not in self.columns}
        missing = [theirs for theirs in self.columns if theirs not in row]
        missing += [field for field, needed in self.fields.items() if needed and field not in taken | found.keys()]
        if missing:
            named = ", ".join(f"'{name}'" for name in missing)
            other = name_reader(row)
            hint = (
                f"; these are rows of the reader {other}" if other and other != self.reader
                else f"; `columns: {{their column: {missing[-1]}}}` of {self.reader} renames columns"
            )  # fmt: skip
            keys = "keys" if len(missing) > 1 else "key"
            raise InputError(f"{where}: missing {keys} {named}; found {sorted(map(str, row))}{hint}")
        for theirs, ours in self.columns.items():
            outer, _, inner = ours.partition(".")
            if inner:
                found[outer] = {**(found.get(outer) or {}), inner: row[theirs]}
            else:
                found[ours] = row[theirs]
        return found, [str(k) for k in row if k not in self.columns and k not in found]
