"""Parse configuration files with variables and short class names; both programs' parsers do it alike."""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import json
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from stepverify.records import InputError
from stepverify.variables import Variables

_SEVERAL = (typing.Union, types.UnionType, list, collections.abc.Sequence, collections.abc.Iterable)


class ConfigFiles:
    """Mixin of a jsonargparse parser whose ``--config`` files may use variables and short class names.

    Attributes:
        variables: of the command line.
        hints: the type of each key of a file.
        links: (source, target): keys that must agree, of which the first is given.
    """

    variables: Variables
    hints: Mapping[str, Any]
    links: Sequence[tuple[str, str]] = ()
    _filled: str | None = None

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Parse a file after its variables are replaced.

        Raises:
            InputError: an undefined variable, a class name that is unknown or ambiguous, or another value for a key
                than the one that it is linked to has: the parser would replace it silently.
        """
        tree = self.variables.read(Path(path))
        for source, target in self.links:
            first, given = _look_up(tree, source), _look_up(tree, target)
            if given is not None and given != first:
                raise InputError(f"{path}: {target}: {given} is not used: {source} decides it; set that alone")
        for key, value in tree.items():
            check_class_names(value, self.hints.get(key), f"{path}: {key}")
        self._filled = json.dumps(tree)  # JSON is YAML, and keeps text and numbers apart
        return super().parse_path(path, *args, **kwargs)  # type: ignore[misc]

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Any:
        """Parse the text of the file that is being read, or another one."""
        content, self._filled = self._filled or content, None
        return super().parse_string(content, *args, **kwargs)  # type: ignore[misc]


def _look_up(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def check_class_names(value: Any, hint: Any, where: str) -> None:
    """Check every short class name in a value: ``class_path: GSM8K``.

    A class has the name as its own, is of the key's type, and is imported: those of this project and of its libraries
    are with the program.

    Args:
        value: of a configuration file.
        hint: the type of its key; where that is unknown, nothing is checked.
        where: file and key, for the message.

    Raises:
        InputError: naming the classes that are possible.
    """
    if isinstance(value, list):
        for i, item in enumerate(value):
            check_class_names(item, hint, f"{where}[{i}]")
    elif isinstance(value, str):
        named = [cls for cls in _classes(hint) if inspect.isabstract(cls)]
        if named and value.isidentifier() and not _takes_text(hint) and value not in _literals(hint):
            _find(value, named, where)
    elif isinstance(value, dict) and "class_path" in value:
        cls = _find(str(value["class_path"]), [*_classes(hint)], f"{where}.class_path")
        _check_parameters(value.get("init_args"), cls, f"{where}.init_args")
    elif isinstance(value, dict) and "init_args" not in value:
        items = [get_args(part)[1] for part in _parts(hint) if get_origin(part) is dict]
        for key, item in value.items() if items else ():
            check_class_names(item, items[0], f"{where}.{key}")
        for built in [] if items else _classes(hint):
            _check_parameters(value, built, where)


def hints_of(function: Any) -> dict[str, Any]:
    """Return the types of a function's or a class's parameters; none where they cannot be resolved."""
    try:
        return typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except (NameError, TypeError, AttributeError):
        return {}


def _check_parameters(values: Any, cls: type | None, where: str) -> None:
    if isinstance(values, dict) and cls is not None:
        hints = hints_of(cls)
        for key, value in values.items():
            check_class_names(value, hints.get(key), f"{where}.{key}")


def _find(name: str, bases: list[type], where: str) -> type | None:
    """Return the class of a short name, or of an import path where that can be imported."""
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            imported = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError):
            return None  # the parser's own message says why
        return imported if inspect.isclass(imported) else None
    known: dict[str, list[type]] = {}
    found: set[type] = {cls for base in bases for cls in _concrete(base)}
    for cls in sorted(found, key=lambda cls: (cls.__module__, cls.__qualname__)):
        known.setdefault(cls.__name__, []).append(cls)
    if not known:
        return None
    if name not in known:
        possible = ", ".join(sorted(known.keys() - {base.__name__ for base in bases if base.__subclasses__()}))
        raise InputError(f"{where}: no class {name!r}; expected {possible}, or the import path of another class")
    if len(several := known[name]) > 1:
        paths = ", ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in several)
        raise InputError(f"{where}: {name!r} is the name of several classes; expected one of {paths}")
    return several[0]


def _concrete(base: type) -> Iterator[type]:
    """Yield a class and all of its subclasses that can be built and named."""
    if not (inspect.isabstract(base) or "<locals>" in base.__qualname__ or base.__name__.startswith("_")):
        yield base
    subclasses: list[type] = base.__subclasses__()
    for cls in subclasses:
        yield from _concrete(cls)


def _parts(hint: Any) -> Iterator[Any]:
    """Yield the members of a union and the items of lists."""
    if get_origin(hint) in _SEVERAL:
        for part in get_args(hint):
            yield from _parts(part)
    elif get_origin(hint) is collections.abc.Callable:
        yield from _parts(get_args(hint)[-1])  # optimizers: what builds one is given by its class
    else:
        yield hint


def _classes(hint: Any) -> Iterator[type]:
    for part in _parts(hint):
        if inspect.isclass(part) and not issubclass(part, (str, os.PathLike, int, float, type(None))):
            yield part


def _takes_text(hint: Any) -> bool:
    return any(inspect.isclass(part) and issubclass(part, (str, os.PathLike)) for part in _parts(hint))


def _literals(hint: Any) -> set[Any]:
    return {value for part in _parts(hint) if get_origin(part) is Literal for value in get_args(part)}
