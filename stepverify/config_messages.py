"""Turn the configuration parser's messages into one line with file, line, key and value."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any

from stepverify.config_lines import line_of
from stepverify.config_values import known_keys
from stepverify.suggest import meant, shown

_KEY = re.compile(r'Parser key "([^"]+)"|class_path \'([^\']+)\'')
_OPTION = re.compile(r"(?:Group '([^']+)' does not accept option|Option) '([^']+)'")
_REQUIRED = re.compile(r"arguments are required: (.+)|Key \"([^\"]+)\" is required")
_VALUE = re.compile(r"argument (--\S+): expected one argument")
_EXPECTED = re.compile(r"Expected an? (?:<class '(\w+)'>|typing\.Literal\[(.+?)\]|(\w[\w.\[\], |]*))\. Got value: (.*)")
_WORDS = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text"}


def explain(message: str, files: Sequence[tuple[str, Any]]) -> str:
    """Return one line for a message of the parser.

    Args:
        message: of jsonargparse, of any number of lines.
        files: name and content of each configuration file that was read.
    """
    key, cls = _place(message)
    if found := _OPTION.search(message):
        group, name = found.groups()
        known = known_keys(cls) if cls is not None else None
        at = ".".join([part for part in (key, "init_args" if cls is not None else "", group) if part] + [name])
        owner = f" of {cls.__name__}" if cls is not None else ""
        return f"{_where(at, files)}: no such key{owner}" + (f"; {meant(name, known)}" if known else "")
    if found := _REQUIRED.search(message):
        names = (found[1] or found[2]).split(", ")
        if cls is None:
            given = " ".join(f"--{name} {name.upper()}" for name in names)
            return f"{', '.join(names)}: missing; give {given}, or a file with {_these(names)}: --config FILE.yaml"
        given = " ".join(f"--{key}.init_args.{name} {name.upper()}" for name in names)
        return f"{_where(key, files)}: {cls.__name__} needs init_args: {', '.join(names)}; give {given}"
    if found := _VALUE.search(message):
        return f"{found[1]}: expected a value after it"
    if found := _EXPECTED.search(message):
        kind, choices, other, value = found.groups()
        wanted = _WORDS.get(kind, kind) or (choices or other).replace("'", "")
        return f"{_where(key, files)}: {shown(value)}: expected {wanted}"
    return " ".join(message.split())[:400]


def _place(message: str) -> tuple[str, Any]:
    """Return the dotted key that a message is about, and the innermost class that it names."""
    keys, cls = list[str](), None
    for name, path in _KEY.findall(message):
        if path:
            cls = _import(path) or cls
            continue
        keys += (["init_args"] if keys and cls is not None else []) + [name]
    return ".".join(keys), cls


def _import(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None


def _where(key: str, files: Sequence[tuple[str, Any]]) -> str:
    """Return file, line and key of a configuration file that has the key, or the option of the command line."""
    for path, tree in reversed(files):
        node = tree
        for part in key.split("."):
            node = node.get(part, _MISSING) if isinstance(node, dict) else _MISSING
        if node is not _MISSING:
            return f"{path}:{line_of(path, key)}: {key}"
    return f"--{key}"


_MISSING = object()


def _these(names: Sequence[str]) -> str:
    return "this key" if len(names) == 1 else "these keys"
