"""Records as JSON Lines: parsed with the key and value that is wrong, written as a whole or not at all.

A stage's folder holds ``*.jsonl`` shards and a manifest; users' own files may be compressed (``.jsonl.gz``).
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import math
import sys
import types
import typing
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

from stepverify.atomic import replacing
from stepverify.consistency import Consistency
from stepverify.records import AnyRecord, InputError, Record, record_key

MANIFEST = "manifest.json"


def dump_line(record: AnyRecord) -> str:
    """One line of JSON, line end included. Fields at their default are left out.

    Raises:
        ValueError: a number is not finite, so that no reader would take the line.
    """
    return json.dumps(_plain(record), ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def _plain(record: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, default in _defaults(record.__class__).items():
        value = getattr(record, name)
        if name == "step_labels" and value is not None:
            value = [label and _plain(label) for label in value]
        if value != default:
            plain[name] = value
    return plain


def parse_record(kind: type[Record], data: Any) -> Record:
    """Build a record from decoded JSON.

    Raises:
        InputError: naming the key and the value that is missing, unknown or of the wrong type.
    """
    return cast(Record, _convert(kind, data, ""))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


@cache
def _defaults(kind: type) -> dict[str, Any]:
    fields = dataclasses.fields(kind)
    return {f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory() for f in fields}


@cache
def _required(kind: type) -> frozenset[str]:
    missing = dataclasses.MISSING
    return frozenset(f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing)


@cache
def _shape(expected: Any) -> tuple[bool, Any, tuple[Any, ...]]:
    return dataclasses.is_dataclass(expected), typing.get_origin(expected), typing.get_args(expected)


def _convert(expected: Any, value: Any, key: str) -> Any:
    if type(value) is expected and (expected is not float or math.isfinite(value)):
        return value
    is_record, origin, parts = _shape(expected)
    if is_record:
        if not isinstance(value, dict):
            raise _mismatch(key, "an object", value)
        hints, prefix = _hints(expected), f"{key}." if key else ""
        if missing := _required(expected) - value.keys():
            raise InputError(f"missing key '{prefix}{min(missing)}'; found {sorted(value)}")
        if unknown := value.keys() - hints.keys():
            raise InputError(f"unknown key '{prefix}{min(unknown)}'; a {expected.__name__} has {sorted(hints)}")
        return expected(**{k: _convert(hints[k], v, prefix + k) for k, v in value.items()})
    if origin is types.UnionType:
        if value is None and type(None) in parts:
            return None
        return _convert(parts[0], value, key)
    if origin is list:
        if not isinstance(value, list):
            raise _mismatch(key, "a list", value)
        if parts[0] in (int, str) and all(type(item) is parts[0] for item in value):
            return value
        return [_convert(parts[0], item, f"{key}[{i}]") for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise _mismatch(key, "an object", value)
        return {k: _convert(parts[1], item, f"{key}.{k}") for k, item in value.items()}
    if expected is Any:
        return value
    number = expected is float and isinstance(value, int) and not isinstance(value, bool)
    if not number and type(value) is not expected:
        raise _mismatch(
            key, {str: "a string", int: "an integer", float: "a number", bool: "true or false"}[expected], value
        )
    if expected is float and not abs(value) <= sys.float_info.max:  # an integer of JSON can be larger
        raise _mismatch(key, "a finite number", value)
    return value


def _mismatch(key: str, expected: str, value: Any) -> InputError:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return InputError(f"key '{key}': expected {expected}, got {shown[:80] + '…' if len(shown) > 80 else shown}")


def shards(path: str | Path) -> list[Path]:
    """The JSON Lines files behind ``path``: itself, or the shards of a finished stage's folder.

    Raises:
        InputError: nothing there, an empty folder, or a stage that was not run to its end.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    manifest = path / MANIFEST
    if manifest.is_file():
        try:
            described = json.loads(manifest.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise InputError(f"{manifest}: not JSON: {error}") from None
        if isinstance(described, dict) and not described.get("finished", True):
            raise InputError(
                f"{path}: this stage has not finished; run it again with the same configuration to resume it"
            )
    found = sorted(p for p in path.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz")))
    if not found:
        raise InputError(f"{path}: holds no .jsonl or .jsonl.gz file")
    return found


class _NotFinite(ValueError):
    """NaN or Infinity, which Python's json writes and JSON has not."""


def _no_constant(name: str) -> Any:
    raise _NotFinite(name)


_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def read_json_lines(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Yield ``(file:line, decoded value)`` for each line of one file; ``.gz`` is read as it is.

    A byte order mark before a line is passed over: some editors put one first, and joined files have it between.

    Raises:
        InputError: no line at all, or one that is not JSON.
    """
    path = Path(path)
    empty = True
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, start=1):
                line = text.removeprefix("\ufeff")
                if not line.strip():
                    continue
                empty = False
                try:
                    data = _decode(line)
                except _NotFinite as error:
                    key = _key_of(json.loads(line), str(error))
                    raise InputError(f"{path}:{number}: key '{key}': expected a finite number, got {error}") from None
                except (ValueError, RecursionError) as error:
                    said = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
                    raise InputError(f"{path}:{number}: not JSON ({said}): {line.strip()[:80]}") from None
                yield f"{path}:{number}", data
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not readable as UTF-8 JSON Lines: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if empty:
        raise InputError(f"{path}: the file is empty")


def _key_of(data: Any, constant: str) -> str:
    """Find the key of the first number that JSON has no spelling for."""
    for name, item in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        here = f"[{name}]" if isinstance(data, list) else f".{name}"
        if isinstance(item, float) and json.dumps(item) == constant:
            return here.removeprefix(".")
        if isinstance(item, dict | list) and (below := _key_of(item, constant)):
            return (here + ("" if below.startswith("[") else ".") + below).removeprefix(".")
    return ""


def read_records(
    path: str | Path, kind: type[Record], change: Callable[[str, Any], None] | None = None
) -> Iterator[Record]:
    """Yield the records of a file or of a finished stage's folder, in order.

    Raises:
        InputError: as ``file:line: key 'k': expected …, got …``; an id that occurs twice; scores of one verifier
            that are of steps in some solutions and not in others.
    """
    for _, record in read_located(path, kind, change):
        yield record


def read_located(
    path: str | Path, kind: type[Record], change: Callable[[str, Any], None] | None = None
) -> Iterator[tuple[str, Record]]:
    """Yield ``(file:line, record)``, as :func:`read_records` does.

    Args:
        path: a file, or a finished stage's folder.
        kind: of the records.
        change: edits a decoded line in place before it is checked; gets its ``file:line`` too.
    """
    seen = Consistency()
    for shard in shards(path):
        for where, data in read_json_lines(shard):
            try:
                if change is not None:
                    change(where, data)
                record = parse_record(kind, data)
                if not seen.add(where, record):
                    raise InputError(f"id {record_key(record)!r} occurs in {first_place(path, record)} already")
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            yield where, record
    seen.check()


def first_place(path: str | Path, record: AnyRecord) -> str:
    """Find the first line with a record's id, as ``file:line``."""
    name = "id" if hasattr(record, "id") else "problem_id"
    found = ((where, data.get(name)) for shard in shards(path) for where, data in read_json_lines(shard))
    return next(where for where, key in found if key == record_key(record))


def write_records(path: str | Path, records: Iterable[AnyRecord]) -> int:
    """Write one shard as a whole: either the complete file appears, or none. Returns the count."""
    return write_lines(path, map(dump_line, records))


def write_lines(path: str | Path, lines: Iterable[str]) -> int:
    """Write lines of text as a whole file, line ends included. Returns the count."""
    count = 0
    with replacing(path) as draft, draft.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line)
            count += 1
    return count


def fingerprint(path: str | Path) -> str:
    """SHA-256 over the contents of all shards behind ``path``: the identity of a stage's input."""
    digest = hashlib.sha256()
    for shard in shards(path):
        with shard.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
