"""Find the line of a key in a YAML file, for messages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stepverify.errors import InputError

_PART = re.compile(r"[^.\[\]]+")


def with_line(path: str | Path, error: InputError) -> InputError:
    """Return an error whose message begins with ``file: key:`` with the key's line: ``file:line: key:``.

    Others, and keys that are not found, stay as they are.
    """
    start, message = f"{path}: ", str(error)
    if not message.startswith(start):
        return error
    key = message.removeprefix(start).partition(": ")[0]
    number = line_of(path, key)
    return error if number is None else InputError(f"{path}:{number}: {message.removeprefix(start)}")


def line_of(path: str | Path, key: str) -> int | None:
    """Return the line of a key, such as ``model.init_args.heads[0].name``; None where it is not found.

    Keys that a variable brings are found at the key that the variable stands for.
    """
    import yaml

    try:
        node: Any = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    line = None
    for part in _PART.findall(key):
        if isinstance(node, yaml.MappingNode):
            found = [(name, value) for name, value in node.value if name.value == part]
            if not found:
                break
            name, node = found[-1]
            line = name.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
        else:
            break
    return line
