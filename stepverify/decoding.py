"""Decode JSON to records, and report the incorrect key and value.

msgspec decodes and checks good lines. A line that it refuses is decoded again by :mod:`json` and checked key by key, to
locate the error; if nothing is found, the record is accepted.
"""

from __future__ import annotations

import json
import math
import sys
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import msgspec
from msgspec.structs import fields

from stepverify.foreign import describe_row
from stepverify.records import InputError, Record


class _NotFinite(ValueError):
    """Signal NaN or Infinity, which Python writes but JSON lacks."""


def _no_constant(name: str) -> Any:
    raise _NotFinite(name)


decode: Callable[[str], Any] = json.JSONDecoder(parse_constant=_no_constant).decode


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
        return cast(Record, _decoder(kind)(line))
    except (msgspec.MsgspecError, RecursionError):  # its message lacks key and value
        return parse_record(kind, decode(line.decode()))


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
    """Describe why a line could not be decoded.

    Gives the key of a number that is not finite, or the column.
    """
    if isinstance(error, _NotFinite):
        return f"key '{_key_of(json.loads(line), str(error))}': expected a finite number, got {error}"
    said = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
    return f"not JSON ({said}): {line.strip()[:80]}"


def _key_of(data: Any, constant: str) -> str:
    """Find the key of the first number that JSON cannot represent."""
    for name, item in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        here = f"[{name}]" if isinstance(data, list) else f".{name}"
        if isinstance(item, float) and json.dumps(item) == constant:
            return here.removeprefix(".")
        if isinstance(item, dict | list) and (below := _key_of(item, constant)):
            return (here + ("" if below.startswith("[") else ".") + below).removeprefix(".")
    return ""
