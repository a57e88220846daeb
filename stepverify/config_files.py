"""Parse configuration files with variables and short class names; both programs' parsers do it alike."""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import itertools
import json
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from stepverify.config_lines import with_line
from stepverify.config_messages import explain
from stepverify.config_values import check_keys, check_value, known_keys, yaml_value
from stepverify.records import InputError
from stepverify.suggest import check_words, close_to, meant, no_such, shown
from stepverify.variables import Variables

_HELP = {"-h", "--help"}
_DATA = (".jsonl", ".gz", ".csv", ".parquet")
_CONFIGS = (".yaml", ".yml", ".json")
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

    def parse_args(self, args: Any = None, *others: Any, **kwargs: Any) -> Any:
        """Parse a command line; its words are checked first, as the parser's messages name no close option.

        Raises:
            InputError: a word alone, an unknown option, or a value of another type.
        """
        if self._is_outer and self._top_keys and args is not None and not _HELP.intersection(args):
            check_words(self.prog, args)  # type: ignore[attr-defined]
            for word, value in itertools.zip_longest(args, args[1:], fillvalue=""):
                if word.startswith("--"):
                    name, given, text = word.partition("=")
                    self._check_option(name, text if given else value)
        return super().parse_args(args, *others, **kwargs)  # type: ignore[misc]

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Parse a file after its variables are replaced.

        Raises:
            InputError: an undefined variable, an unknown key, a class name that is unknown or ambiguous, a value of
                another type, or another value for a key than the one that it is linked to has: the parser would
                replace it silently.
        """
        try:
            tree = self.variables.read(Path(path))
            for source, target in self.links:
                first, given = _look_up(tree, source), _look_up(tree, target)
                if given is not None and given != first:
                    raise InputError(f"{path}: {target}: {given} is not used: {source} decides it; set that alone")
            check_keys(tree, self._top_keys, f"{path}: ")
            for key, value in tree.items():
                check_tree(value, self.hints.get(key), f"{path}: {key}")
        except InputError as error:
            raise with_line(path, error) from None
        self.files_read = [*getattr(self, "files_read", ()), (str(path), tree)]
        self._filled = json.dumps(tree)  # JSON is YAML, and keeps text and numbers apart
        return super().parse_path(path, *args, **kwargs)  # type: ignore[misc]

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Any:
        """Parse the text of the file that is being read, or another one."""
        content, self._filled = self._filled or content, None
        return super().parse_string(content, *args, **kwargs)  # type: ignore[misc]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the parser's message as one line.

        Raises:
            InputError: always, from the parser of a command line.
        """
        if not (self._is_outer and self.exit_on_error):  # type: ignore[attr-defined]
            super().error(message, ex)  # type: ignore[misc]
        raise (InputError.within(ex) or InputError(explain(message, getattr(self, "files_read", [])))) from None

    @property
    def _is_outer(self) -> bool:
        """Tell whether this parser is that of a command line: those of classes within are of this type too."""
        return hasattr(self, "variables")

    @property
    def _top_keys(self) -> set[str] | None:
        """Return the keys of a file; None of the parser that knows the commands alone."""
        if getattr(self, "_subcommands_action", None) is not None:
            return None
        dests = {action.dest.partition(".")[0] for action in self._actions}  # type: ignore[attr-defined]
        return (dests | {target.partition(".")[0] for _, target in self.links}) - {"help", "print_config", "config"}

    def _check_option(self, name: str, text: str) -> None:
        if name == "--config" and text[:1] not in ("{", "") and not Path(text).exists():
            raise InputError(f"--config: {no_such(text, 'file')}")
        key, options = name.removeprefix("--").removesuffix("+"), self._option_string_actions  # type: ignore[attr-defined]
        if f"--{key}" in options and key.partition(".")[0] not in self.hints:
            return  # --help, --config and others of the parser alone
        if f"--{key.partition('.')[0]}" not in options and f"--{key}" not in options:
            raise InputError(f"{name}: no such option; {meant(key, self._top_keys or (), '--')}")
        hint = hint_of(key, self.hints, name)
        if hint is not None:
            read = yaml_value(text)
            check_tree(read if isinstance(read, dict | list) else text, hint, name)


def _look_up(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def check_tree(value: Any, hint: Any, where: str) -> None:
    """Check the keys, the class names and the types of a value: ``class_path: GSM8K``.

    A class has the name as its own, is of the key's type, and is imported: those of this project and of its libraries
    are with the program.

    Args:
        value: of a configuration file.
        hint: the type of its key; where that is unknown, nothing is checked.
        where: file and key, for the message.

    Raises:
        InputError: naming key, value and what is possible.
    """
    if hint is not None:
        _check_classes(value, hint, where)
        check_value(value, hint, where)


def _check_classes(value: Any, hint: Any, where: str) -> None:
    if isinstance(value, list):
        for i, item in enumerate(value):
            _check_classes(item, hint, f"{where}[{i}]")
    elif isinstance(value, str):
        named = [cls for cls in _classes(hint) if inspect.isabstract(cls)]
        if named and not _takes_text(hint) and value not in _literals(hint):
            if value.isidentifier() and isinstance(yaml_value(value), str):  # neither null nor false
                _find(value, named, where)
            elif Path(value).suffix in _DATA or ("/" in value and Path(value).suffix not in _CONFIGS):
                raise InputError(f"{where}: {shown(value)}: expected {_as_class(named[0], value)}")
    elif isinstance(value, dict) and "class_path" in value:
        check_keys(value, {"class_path", "init_args", "dict_kwargs"}, f"{where}.")
        cls = _find(str(value["class_path"]), [*_classes(hint)], f"{where}.class_path")
        _check_parameters(value.get("init_args"), cls, f"{where}.init_args")
    elif isinstance(value, dict) and "init_args" not in value:
        items = [get_args(part)[1] for part in _parts(hint) if get_origin(part) is dict]
        for key, item in value.items() if items else ():
            check_tree(item, items[0], f"{where}.{key}")
        built = [] if items else [*_classes(hint)]
        if len(built) == 1 and not inspect.isabstract(built[0]):
            _check_parameters(value, built[0], where)


def hint_of(key: str, hints: Mapping[str, Any], where: str) -> Any:
    """Return the type of an option such as ``data.pack_tokens``; None where that depends on other options.

    Raises:
        InputError: a class that has no such parameter.
    """
    first, *parts = key.split(".")
    hint = hints.get(first)
    for i, part in enumerate(parts):
        items = [get_args(one)[1] for one in _parts(hint) if get_origin(one) is dict]
        classes = [*_classes(hint)]
        if items:
            hint = items[0]
            continue
        if len(classes) != 1 or inspect.isabstract(classes[0]) or part in ("class_path", "init_args", "help"):
            return None
        if (known := known_keys(classes[0])) is not None and part not in known:
            before = "--" + ".".join([first, *parts[:i]]) + "."
            raise InputError(f"{where}: no such option; {meant(part, known, before)}")
        hint = hints_of(classes[0]).get(part)
    return hint


def hints_of(function: Any) -> dict[str, Any]:
    """Return the types of a function's or a class's parameters; none where they cannot be resolved."""
    try:
        return typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except (NameError, TypeError, AttributeError):
        return {}


def _as_class(base: type, path: str) -> str:
    """Write how an object of a class is given; of readers, with the path."""
    if base.__name__ == "Reader":
        return f"a reader, as {{class_path: Problems, init_args: {{path: {path}}}}}, or Solutions"
    return f"a class of {base.__name__} and its init_args"


def _check_parameters(values: Any, cls: type | None, where: str) -> None:
    if isinstance(values, dict) and cls is not None:
        check_keys(values, known_keys(cls), f"{where}.", cls.__name__)
        hints = hints_of(cls)
        for key, value in values.items():
            check_tree(value, hints.get(key), f"{where}.{key}")


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
        possible = known.keys() - {base.__name__ for base in bases if base.__subclasses__()}
        said = meant(name, possible) if close_to(name, possible) else f"expected {', '.join(sorted(possible))}"
        other = "" if said.endswith("?") else ", or the import path of another class"
        raise InputError(f"{where}: no class {name!r}; {said}{other}")
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
