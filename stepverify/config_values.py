"""Check keys and values of a configuration against the types that a program expects."""

from __future__ import annotations

import collections.abc
import inspect
import os
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from stepverify.errors import InputError
from stepverify.suggest import close_to, either, meant, shown

_SEQUENCES = (list, set, tuple, collections.abc.Sequence, collections.abc.Iterable)
_MAPPINGS = (dict, collections.abc.Mapping)
_UNIONS = (typing.Union, types.UnionType)
_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "text", type(None): "null"}


def known_keys(function: Any) -> set[str] | None:
    """Return the parameters of a class or function; None where it takes further ones, that only the parser finds."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters}


def check_keys(values: Mapping[str, Any], known: set[str] | None, where: str, of: str = "") -> None:
    """Check that every key is known.

    Args:
        values: entries of a mapping.
        known: None checks nothing.
        where: place of the mapping: file and key.
        of: name of the class, for the message.

    Raises:
        InputError: naming key, value and the close names.
    """
    if known is None:
        return
    for key, value in values.items():
        if key not in known:
            owner = f" of {of}" if of else ""
            raise InputError(f"{where}{key}: {shown(value)}: no such key{owner}; {meant(str(key), known)}")


def check_value(value: Any, hint: Any, where: str) -> None:
    """Check that a value can be of a type.

    Raises:
        InputError: naming place, value, and what is expected.
    """
    if not fits(value, hint):
        choices = [str(one) for part in _members(hint) if get_origin(part) is Literal for one in get_args(part)]
        if isinstance(value, str) and close_to(value, choices):
            raise InputError(f"{where}: {shown(value)}: {meant(value, choices)}")
        raise InputError(f"{where}: {shown(value)}: expected {expected(hint)}")


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value may be of a type; True where only the parser can tell.

    Text that is written in YAML is read again where no text is expected, as the parser does.
    """
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    origin, args = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return any(fits(value, part) for part in args)
    if origin is Literal:
        return value in args or (isinstance(value, str) and any(value == str(one) for one in args))
    if hint in (None, type(None)):
        return value is None or value == "null"
    if value is None and hint in _NAMES:
        return False
    if hint in (bool, int, float):
        return _is_number(yaml_value(value) if isinstance(value, str) else value, hint)
    if hint is str:
        return not isinstance(value, list | dict)
    if origin in _SEQUENCES or hint in _SEQUENCES:
        return _fits_list(value, args)
    if origin in _MAPPINGS or hint in _MAPPINGS:
        return _fits_mapping(value, args)
    if inspect.isclass(hint) and issubclass(hint, os.PathLike):
        return isinstance(value, str | Path)
    if inspect.isclass(hint) and inspect.isabstract(hint):
        return isinstance(value, str | dict)
    return True


def _fits_list(value: Any, args: tuple[Any, ...]) -> bool:
    if isinstance(value, str):  # a list in text, or the name of a file that holds one
        read = yaml_value(value)
        return isinstance(read, list) or any(
            inspect.isclass(part) and issubclass(part, os.PathLike) for arg in args for part in _members(arg)
        )
    item = args[0] if len({*args} - {...}) == 1 else Any
    return isinstance(value, list | tuple) and all(fits(one, item) for one in value)


def _fits_mapping(value: Any, args: tuple[Any, ...]) -> bool:
    if isinstance(value, str):  # a mapping in text, or the name of a file that holds one
        return isinstance(yaml_value(value), dict) or Path(value).is_file()
    return isinstance(value, dict) and (len(args) < 2 or all(fits(item, args[1]) for item in value.values()))


def _is_number(value: Any, hint: type) -> bool:
    if hint is bool:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and (hint is float or value.is_integer()))


def yaml_value(text: str) -> Any:
    """Read a text as the parser reads a value; the text itself where it is no YAML."""
    from jsonargparse import get_loader
    from yaml import YAMLError

    try:
        return get_loader("yaml")(text)
    except (YAMLError, ValueError, RecursionError):
        return text


def expected(hint: Any) -> str:
    """Describe a type in the words of YAML."""
    return either([*dict.fromkeys(name for part in _members(hint) for name in _describe(part))])


def _describe(hint: Any) -> list[str]:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return [str(one) for one in args]
    if hint in _NAMES:
        return [_NAMES[hint]]
    if origin in _SEQUENCES or hint in _SEQUENCES:
        return ["a list" + (f" ({expected(args[0])} each)" if args and args[0] is not Any else "")]
    if origin in _MAPPINGS or hint in _MAPPINGS:
        return ["names and values, as {name: value}"]
    if inspect.isclass(hint) and issubclass(hint, os.PathLike):
        return ["a path"]
    name = getattr(hint, "__name__", None) or str(hint)
    return [f"{'an' if name[:1] in 'AEIOU' else 'a'} {name} by class_path and init_args"]


def _members(hint: Any) -> Iterator[Any]:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in _UNIONS:
        for part in get_args(hint):
            yield from _members(part)
    else:
        yield hint
