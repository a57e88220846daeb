"""Read and write records as JSON Lines.

Errors name the incorrect key and value; files are written completely or not at all. A stage's folder holds ``*.jsonl``
shards and a manifest; users' own files may be compressed (``.jsonl.gz``). Lines are written by :mod:`json`: msgspec,
which reads them (:mod:`stepverify.decoding`), would write a NaN as ``null``.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

import msgspec
from msgspec.structs import fields

from stepverify import trial
from stepverify.atomic import refuse_others, replacing
from stepverify.consistency import Consistency
from stepverify.decoding import decode, decode_record, describe_fault, parse_record, read_json
from stepverify.made_by import check_made_by
from stepverify.records import InputError, Record, record_key
from stepverify.suggest import look_like, no_such

__all__ = [
    "MANIFEST", "check_output", "dump_line", "fingerprint", "first_place", "parse_record", "read_json_lines",
    "read_located", "read_records", "shards", "write_lines", "write_records",
]  # fmt: skip

MANIFEST = "manifest.json"
_GZIP = b"\x1f\x8b"


def dump_line(record: msgspec.Struct) -> str:
    """Encode a record as one line of JSON, line end included.

    Fields with default values are left out.

    Raises:
        ValueError: a number is not finite, so no reader would accept the line.
    """
    return json.dumps(_plain(record), ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def _plain(record: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, default in _defaults(record.__class__).items():
        value = getattr(record, name)
        if isinstance(value, msgspec.Struct):
            value = _plain(value)
        elif name == "step_labels" and value is not None:
            value = [label and _plain(label) for label in value]
        elif name == "critiques":
            value = {verifier: [_plain(one) for one in critiques] for verifier, critiques in value.items()}
        if value != default:
            plain[name] = value
    return plain


@cache
def _defaults(kind: type) -> dict[str, Any]:
    return {f.name: f.default if f.default_factory is msgspec.NODEFAULT else f.default_factory() for f in fields(kind)}


def shards(path: str | Path) -> list[Path]:
    """List the JSON Lines files of a path.

    These are the file itself, or the shards in a stage's folder.

    Raises:
        InputError: no such path, an empty folder, or a stage that has not finished.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(no_such(path))
    if not _described(path).get("finished", True):
        raise InputError(f"{path}: this stage has not finished; run it again with the same configuration to resume it")
    found = sorted(p for p in path.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz")))
    if not found:
        raise InputError(f"{path}: holds no .jsonl or .jsonl.gz file{look_like(path)}")
    return found


def _described(path: str | Path) -> dict[str, Any]:
    """Return the manifest of a folder; empty for a file, or a folder without one."""
    manifest = Path(path) / MANIFEST
    if not manifest.is_file():
        return {}
    described = read_json(manifest)
    return described if isinstance(described, dict) else {}


def _recorded(path: str | Path) -> tuple[int | None, str | None]:
    """Return the number and digest of the records that a finished folder's manifest says; None where it does not."""
    known = _described(path).get("records")
    count, digest = (known.get("count"), known.get("sha256")) if isinstance(known, dict) else (None, None)
    if not isinstance(count, int | None) or not isinstance(digest, str | None) or not isinstance(known, dict | None):
        raise InputError(f"{Path(path) / MANIFEST}: key 'records': expected count and sha256, got {known!r:.80}")
    return count, digest


def check_count(path: str | Path, count: int) -> None:
    """Compare the number of records with the one that a finished folder's manifest says.

    Raises:
        InputError: they differ.
    """
    if (said := _recorded(path)[0]) not in (None, count):
        raise _changed_since(path, f"it holds {count:,} records, its {MANIFEST} says {said:,}")


def _changed_since(path: str | Path, how: str) -> InputError:
    return InputError(
        f"{path}: was changed after its stage had finished: {how}; run the stage again into another folder, or, if the "
        f"change is meant, move the .jsonl files to a folder without {MANIFEST}"
    )


def read_json_lines(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Yield ``(file:line, decoded value)`` for each line of one file.

    ``.gz`` is decompressed. A byte order mark before a line is skipped: some editors write one first, and joined files
    have them in between.

    Raises:
        InputError: an empty file, or a line that is not JSON.
    """
    for where, line in _read_lines(path):
        try:
            data = decode(line.decode())
        except UnicodeDecodeError as error:
            raise _unreadable(path, error) from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: {describe_fault(line.decode(), error)}") from None
        yield where, data


def _read_lines(path: str | Path) -> Iterator[tuple[str, bytes]]:
    path = Path(path)
    name, empty = str(path), True
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb", buffering=1 << 18) as file:
            for number, text in enumerate(file, start=1):
                line = text.removeprefix(codecs.BOM_UTF8)
                if line and not line.isspace():
                    empty = False
                    yield f"{name}:{number}", line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if empty:
        raise InputError(f"{path}: the file is empty")


def _unreadable(path: str | Path, error: Exception) -> InputError:
    return InputError(f"{path}: not readable as UTF-8 JSON Lines: {error}")


def read_records(
    path: str | Path, kind: type[Record], change: Callable[[str, Any], None] | None = None
) -> Iterator[Record]:
    """Yield the records of a file or finished stage, in order.

    Raises:
        InputError: as ``file:line: key 'k': expected …, got …``; an id that occurs twice; a verifier with step scores
            in some solutions and other scores in others.
    """
    for _, record in read_located(path, kind, change):
        yield record


def read_located(
    path: str | Path, kind: type[Record], change: Callable[[str, Any], None] | None = None
) -> Iterator[tuple[str, Record]]:
    """Yield ``(file:line, record)``, as :func:`read_records` does.

    Args:
        path: a file, or a finished stage's folder.
        kind: record type.
        change: called with ``file:line`` and the decoded line, to edit it in place before it is checked.
    """
    seen, wanted = Consistency(), trial.of_path(path)
    check_made_by(path, kind, _described(path))
    for shard in shards(path):
        for where, line in _read_lines(shard):
            try:
                record = decode_record(kind, line) if change is None else _changed(kind, where, line, change)
                if wanted is not None and not wanted(record.problem_id):  # type: ignore[attr-defined]
                    continue
                if not seen.add(where, record):
                    raise InputError(f"id {record_key(record)!r} occurs in {first_place(path, record)} already")
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            except UnicodeDecodeError as error:
                raise _unreadable(shard, error) from None
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where}: {describe_fault(line.decode(), error)}") from None
            yield where, record
    seen.check()
    if wanted is None:
        check_count(path, len(seen))


def _changed(kind: type[Record], where: str, line: bytes, change: Callable[[str, Any], None]) -> Record:
    data = decode(line.decode())
    change(where, data)
    return parse_record(kind, data)


def first_place(path: str | Path, record: msgspec.Struct) -> str:
    """Find the first line with a record's id, as ``file:line``."""
    name = "id" if hasattr(record, "id") else "problem_id"
    found = ((where, data.get(name)) for shard in shards(path) for where, data in read_json_lines(shard))
    return next(where for where, key in found if key == record_key(record))


def write_records(path: str | Path, records: Iterable[msgspec.Struct]) -> int:
    """Write one shard atomically; return the number of records."""
    return write_lines(path, map(dump_line, records))


def check_output(path: Path) -> None:
    """Check that a file of JSON Lines may be written to a path.

    Raises:
        InputError: it is a folder, a link, a device, or a file that holds something else.
    """
    refuse_others(path, folder=False)
    if path.is_file():
        with path.open("rb") as file:
            begin = file.read(256).removeprefix(codecs.BOM_UTF8).lstrip()
        if begin and not begin.startswith((b"{", _GZIP)):
            raise InputError(f"{path}: there is a file that is no JSON Lines; choose another output, or remove it")


def write_lines(path: str | Path, lines: Iterable[str]) -> int:
    """Write lines, which include their line ends, as a file atomically; compressed if its name ends in ``.gz``.

    Returns their number.
    """
    count = 0
    with replacing(path) as draft, _opened(draft, compressed=Path(path).suffix == ".gz") as file:
        for line in lines:
            file.write(line)
            count += 1
    return count


def _opened(draft: Path, *, compressed: bool) -> IO[str]:
    if not compressed:
        return draft.open("w", encoding="utf-8")
    return io.TextIOWrapper(gzip.GzipFile(draft, "wb", mtime=0), encoding="utf-8")  # equal lines, equal file


def fingerprint(path: str | Path) -> str:
    """Compute the SHA-256 of all shards, to identify a stage's input.

    Raises:
        InputError: a finished folder was changed since.
    """
    digest = digest_files(shards(path))
    if (said := _recorded(path)[1]) is not None and said != digest:
        raise _changed_since(path, f"the digest of its records is {digest[:12]}, its {MANIFEST} says {said[:12]}")
    return digest


def digest_files(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of the contents of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
