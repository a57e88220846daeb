"""Fill the variables of configuration files: ``${model}`` is what ``vars.yaml`` or ``--set model=…`` says.

What the stages of a recipe share (models, data, sizes, the output folder) is written once, in the ``vars.yaml`` of its
folder. A configuration file uses the one beside it, or else that of the folder above. Variables are replaced before
anything is parsed, so that manifests, run folders and checks of a resumed run see values alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepverify.decoding import read_text, refuse_within
from stepverify.records import InputError

FILE = "vars.yaml"
_MOST = 100_000  # values of a file: aliases multiply without end
_NAME = r"[A-Za-z_]\w*"
_USE = re.compile(rf"\$?\$\{{({_NAME})\}}")


def split_arguments(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Take every ``--set name=value`` out of a command line; return the values by name, and the rest.

    Raises:
        InputError: a ``--set`` without name and value.
    """
    given: dict[str, str] = {}
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word != "--set" and not word.startswith("--set="):
            rest.append(word)
            continue
        said = next(words, "") if word == "--set" else word.removeprefix("--set=")
        name, equals, value = said.partition("=")
        if not equals or not re.fullmatch(_NAME, name):
            raise InputError(f"--set: expected name=value, got {said!r}")
        given[name] = value
    return given, rest


def load_yaml(path: Path) -> Any:
    """Load a YAML file.

    Raises:
        InputError: text that is no YAML, with its line.
    """
    from jsonargparse import get_loader
    from yaml import YAMLError

    try:
        tree = get_loader("yaml")(read_text(path))  # takes 1e-5 for a number, as PyYAML's own does not
        refuse_within(tree, finite=False, most=_MOST)
        return tree
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a date that there is not
        raise InputError(f"{path}: no valid YAML: {str(error).partition(';')[0]}") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"{where}: no valid YAML: {getattr(error, 'problem', None) or error}") from error


class Variables:
    """The variables of a command line, to be filled into its configuration files.

    Args:
        given: from ``--set``, as text; these go before the values of ``vars.yaml``.
    """

    def __init__(self, given: Mapping[str, str] | None = None) -> None:
        self.given = dict(given or {})
        self._defined: dict[Path | None, dict[str, Any]] = {}

    def read(self, path: Path) -> dict[str, Any]:
        """Load a configuration file with its variables replaced.

        A value that is one variable takes that with its type; inside other text it stands as text. ``$${name}`` is the
        text ``${name}``, and every other ``$`` is itself.

        Raises:
            InputError: a variable that is not defined, with file and key.
        """
        tree = load_yaml(path)
        if not isinstance(tree, dict):
            raise InputError(f"{path}: expected keys and values")
        file = variables_file(path)
        return {key: _fill(value, self.of(file), f"{path}: {key}", file) for key, value in tree.items()}

    def of(self, file: Path | None) -> dict[str, Any]:
        """Return the variables of a ``vars.yaml`` by name, ``here`` among them, the folder of that file."""
        if file not in self._defined:
            self._defined[file] = self._define(file) if file else {}
        return self._defined[file]

    def check(self) -> None:
        """Refuse a ``--set`` of a variable that no file defines: it would change nothing.

        Raises:
            InputError: naming the variables that there are.
        """
        known = sorted({name for defined in self._defined.values() for name in defined} - {"here"})
        for name in self.given:
            if name not in known:
                raise InputError(f"--set {name}: no such variable; there are: {', '.join(known) or f'none ({FILE})'}")

    def _define(self, file: Path) -> dict[str, Any]:
        tree = load_yaml(file)
        if not isinstance(tree, dict) or not all(re.fullmatch(_NAME, str(name)) for name in tree):
            raise InputError(f"{file}: expected names of letters, digits and _, and their values")
        if "here" in tree:
            raise InputError(f"{file}: here: is the folder of this file, and cannot be defined")
        values: dict[str, Any] = {"here": file.parent.as_posix()}
        for name, default in tree.items():  # each may use those above it
            value = _typed(file, name, self.given[name], default) if name in self.given else default
            values[name] = _fill(value, values, f"{file}: {name}", file)
        return values


def variables_file(path: Path) -> Path | None:
    """Find the ``vars.yaml`` of a configuration file: beside it, or in the folder above."""
    for folder in (path.parent, path.parent.parent if path.parent.name else path.parent / ".."):
        if (folder / FILE).is_file():
            return folder / FILE
    return None


def _typed(file: Path, name: str, text: str, default: Any) -> Any:
    """Read the text of ``--set`` as YAML; where the default is text, as text, unless it is quoted or a collection."""
    from jsonargparse import get_loader
    from yaml import YAMLError

    if isinstance(default, str) and text[:1] not in ("'", '"', "[", "{") and text != "null":
        return text
    try:
        return get_loader("yaml")(text)
    except YAMLError as error:
        raise InputError(f"--set {name}: no valid YAML: {text!r} (in place of {default!r} in {file})") from error


def _fill(value: Any, values: Mapping[str, Any], where: str, file: Path | None) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, values, f"{where}.{key}", file) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, values, f"{where}[{i}]", file) for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def look_up(use: re.Match[str]) -> Any:
        name = use[1]
        if use[0].startswith("$$"):
            return use[0][1:]
        if name not in values:
            known = f"{file} defines {', '.join(values)}" if values else f"there is no {FILE} beside it"
            raise InputError(f"{where}: {use[0]} is not defined: {known}; $${{{name}}} is the text itself")
        return values[name]

    if whole := _USE.fullmatch(value):
        return look_up(whole)

    def as_text(use: re.Match[str]) -> str:
        found = look_up(use)
        if isinstance(found, dict | list) or found is None:
            raise InputError(f"{where}: {use[0]} inside other text: expected text or a number, got {found}")
        return str(found)

    return _USE.sub(as_text, value)
