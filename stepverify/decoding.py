"""Decode JSON to records, and report the incorrect key and value.

msgspec decodes and checks good lines. A line that it refuses is decoded again by :mod:`json` and checked key by key, to
locate the error; if nothing is found, the record is accepted. Both refuse what :mod:`json` alone lets pass: numbers
that are not finite, and half surrogate pairs, which no file could hold again.
"""

from __future__ import annotations

import json
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from msgspec.structs import fields

from stepverify.foreign import describe_row
from stepverify.records import InputError, Record

MAX_DEPTH = 100
"""Levels of lists and objects that a value may have; libraries recurse, and end the process beyond a thousand."""
_MAX_BITS = 14_284  # 4,300 digits, Python's limit for conversions from text
_SUSPECT = re.compile(r"NaN|Infinity|\\u[dD][89a-fA-F]|[eE]\+?0*\d{3}|\d{309}")
_SURROGATE = re.compile("[\ud800-\udfff]")
Made = TypeVar("Made", bound=msgspec.Struct)
_Place = tuple[Any, "_Place"] | None  # key, and the place above


class _Refused(ValueError):
    """Signal a value that JSON or this project does not allow, with its key."""


def decode(text: str) -> Any:
    """Decode JSON strictly.

    Raises:
        ValueError: not JSON; or a number that is not finite, half a surrogate pair, more than :data:`MAX_DEPTH` levels.
    """
    data = json.loads(text)
    if _SUSPECT.search(text) or text.count("[") + text.count("{") > MAX_DEPTH:
        refuse_within(data)
    return data


def read_json(path: Path) -> Any:
    """Read a file that is one JSON value.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    return decode_text(read_text(path), path)


def read_made(kind: type[Made], path: Path, what: str, *, version: int, key: str, maker: str) -> Made:
    """Read a JSON file that a command made.

    Args:
        kind: struct of the file.
        path: the file.
        what: what it should be, for messages: ``a policy``.
        version: that its key ``version`` should have.
        key: another one that no file of this kind lacks.
        maker: command that makes one.

    Raises:
        InputError: not such a file, of another version, or with another key or value than it should have.
    """
    plain = read_json(path)
    found = plain.get("version") if isinstance(plain, dict) else None
    if found != version or key not in plain:
        raise InputError(f"{path}: not {what} of version {version} (key 'version': {found!r}); `{maker}` makes one")
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}") from None


def decode_text(text: str, path: Path) -> Any:
    """Decode a file's text, which is one JSON value.

    Raises:
        InputError: it is not JSON.
    """
    try:
        return decode(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {describe_fault(text, error)}") from None


def read_text(path: Path) -> str:
    """Read a text file, without the byte order mark that some editors write.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text in UTF-8: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def refuse_within(
    data: Any, above: _Place = None, depth: int = 0, *, finite: bool = True, most: int | None = None
) -> None:
    """Refuse the first value that is not allowed; without recursion, so that depth is no danger.

    Args:
        data: decoded JSON or YAML; aliases of YAML may make it endless.
        above: its place.
        depth: lists and objects around it.
        finite: whether numbers must be.
        most: largest number of values.

    Raises:
        ValueError: naming the key.
    """
    waiting: list[tuple[Any, _Place, int]] = [(data, above, depth)]
    count = 0
    while waiting:
        value, place, depth = waiting.pop()
        if most is not None and (count := count + 1) > most:
            raise _Refused(f"more than {most:,} values")
        if finite and isinstance(value, float) and not math.isfinite(value):
            raise _Refused(f"key '{_named(place)}': expected a finite number, got {json.dumps(value)}")
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:  # hexadecimal in YAML; no text can show it
            raise _Refused(f"key '{_named(place)}': an integer of more than 4,300 digits")
        if isinstance(value, str) and _SURROGATE.search(value):
            raise _Refused(f"key '{_named(place)}': half a surrogate pair, which is no character, in {value!a:.80}")
        if isinstance(value, dict | list):
            if depth == MAX_DEPTH:
                raise _Refused(f"key '{_named(place):.80}': lists and objects in more than {MAX_DEPTH} levels")
            waiting += reversed([(item, (key, place), depth + 1) for key, item in _items(value)])
            if isinstance(value, dict):
                for key in value:
                    if isinstance(key, str) and _SURROGATE.search(key):
                        raise _Refused(f"key {key!a:.80}: half a surrogate pair, which is no character")


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    return iter(value.items()) if isinstance(value, dict) else enumerate(value)


def _named(place: _Place) -> str:
    """Write a place as ``meta.a[0].b``."""
    parts: list[str] = []
    while place is not None:
        key, place = place
        parts.append(f"[{key}]" if isinstance(key, int) else f".{key}")
    return "".join(reversed(parts)).removeprefix(".")


def parse_record(kind: type[Record], data: Any) -> Record:
    """Build a record from decoded JSON.

    Raises:
        InputError: naming the key and value that is missing, unknown or of another type.
    """
    return cast(Record, _convert(kind, data, ""))


def decode_record(kind: type[Record], line: bytes) -> Record:
    """Decode a record from one line of JSON.

    Raises:
        InputError: as in :func:`parse_record`.
        ValueError: the line is not JSON, or not UTF-8.
    """
    try:
        record = cast(Record, _decoder(kind)(line))
    except (msgspec.MsgspecError, RecursionError):  # its message lacks key and value
        return parse_record(kind, decode(line.decode()))
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and (meta := getattr(record, "meta", None)):
        refuse_within(meta, ("meta", None), 1)
    return record


@cache
def _decoder(kind: type) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(kind).decode


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


@cache
def _required(kind: type) -> frozenset[str]:
    return frozenset(f.name for f in fields(kind) if f.required)


@cache
def _shape(expected: Any) -> tuple[bool, Any, tuple[Any, ...]]:
    is_record = isinstance(expected, type) and issubclass(expected, msgspec.Struct)
    return is_record, typing.get_origin(expected), typing.get_args(expected)


def _convert(expected: Any, value: Any, key: str) -> Any:
    if type(value) is expected and (expected is not float or math.isfinite(value)):
        return value
    is_record, origin, parts = _shape(expected)
    if is_record:
        if not isinstance(value, dict):
            raise _mismatch(key, "an object", value)
        hints, prefix = _hints(expected), f"{key}." if key else ""
        if missing := _required(expected) - value.keys():
            named = ", ".join(f"'{prefix}{name}'" for name in sorted(missing))
            keys = "keys" if len(missing) > 1 else "key"
            raise InputError(f"missing {keys} {named}; found {sorted(value)}{describe_row(value)}")
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
    return float(value) if number else value


def _mismatch(key: str, expected: str, value: Any) -> InputError:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return InputError(f"key '{key}': expected {expected}, got {shown[:80] + '…' if len(shown) > 80 else shown}")


def describe_fault(line: str, error: ValueError | RecursionError) -> str:
    """Describe why a text could not be decoded.

    Gives the key of a value that is not allowed, or the column.
    """
    if isinstance(error, _Refused | InputError):
        return str(error)
    if isinstance(error, RecursionError):
        return f"not JSON (lists and objects in more than {MAX_DEPTH} levels): {line.strip()[:80]}"
    said = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
    return f"not JSON ({said.partition(';')[0]}): {line.strip()[:80]}"
