"""Compute the key of encoded examples: data, tokenizer, template, module options and this code.

A key is made only of what is known to be all. Readers of this package are functions of their arguments and of the files
in ``path``, which are read and hashed; the solutions of any other reader, and of data sets on the hub, are read and
hashed themselves. An encoder that does not say what it depends on has no key, so nothing is kept.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from stepverify.data.encode import SolutionEncoder
from stepverify.data.table import ExampleTable
from stepverify.readers import Reader
from stepverify.readers.base import once
from stepverify.records import Solution
from stepverify.versions import installed

_LIBRARIES = ("tokenizers", "transformers", "math-verify", "text2num", "msgspec", "numpy")
_PATHS = ("path", "paths")  # attributes of readers that name their files


class Unknown(Exception):
    """Something depends on more than can be seen; the message says what."""


class DataKey:
    """The hash of a reader's solutions, or of all that they depend on.

    Args:
        reader: of the solutions.
        name: of the data, for messages.

    Raises:
        InputError: as the reader; where its code is of another package, its solutions are read.
        Unknown: solutions hold values that are not plain.
    """

    def __init__(self, reader: Reader, name: str) -> None:
        self.reader, self._name, self._own = reader, name, True
        self._encode = msgspec.msgpack.Encoder().encode
        try:
            self.value = self._described()
        except Unknown:
            self._own = False
            for _ in self.watched():
                pass
            self.value = self._seen()

    def watched(self) -> Iterator[Solution]:
        """Read the solutions once more, for :meth:`is_current`."""
        self._hash = hashlib.blake2b(digest_size=16)
        for solution in once(self.reader.solutions(), f"{self._name}: {type(self.reader).__name__}"):
            if not self._own:
                try:
                    packed = self._encode(solution)
                except (TypeError, ValueError, OverflowError) as error:
                    raise Unknown(f"solution {solution.id}: {error}") from None
                self._hash.update(b"%d:" % len(packed))
                self._hash.update(packed)
            yield solution

    def is_current(self) -> bool:
        """Tell whether the data that was just read is that of the hash."""
        return self.value == (self._described() if self._own else self._seen())

    def _described(self) -> str:
        return _hashed(describe(self.reader))

    def _seen(self) -> str:
        self._hash.update(json.dumps(self.reader.counted(), sort_keys=True).encode())
        return self._hash.hexdigest()


def key_of(data: DataKey, encoder: SolutionEncoder, options: Mapping[str, Any]) -> str:
    """Make the key of encoded examples.

    Args:
        data: of the solutions.
        encoder: makes ids of their texts.
        options: of what it is asked for.

    Raises:
        Unknown: encoder or options depend on more than can be seen.
    """
    if type(encoder) is not SolutionEncoder:
        raise Unknown(f"{type(encoder).__qualname__} is another encoder")
    return _hashed({
        "data": data.value, "tokenizer": _tokenizer(encoder.tokenizer), "probe": encoder.probe(),
        "template": describe(encoder.template), "max_length": encoder.max_length, "options": describe(options),
        "code": _code(), "libraries": installed(*_LIBRARIES), "python": sys.version_info[:2],
    })  # fmt: skip


def key_of_reference(table: ExampleTable, described: Mapping[str, Any]) -> str:
    """Make the key of a reference model's log-probabilities.

    Args:
        table: the examples, of which token ids and positions count.
        described: digest of the reference, and how it is computed, as plain values.
    """
    tokens = table.digest("input_ids", "positions")
    return _hashed({
        "tokens": tokens, "reference": described, "code": _code(), "libraries": installed("torch", "transformers"),
    })  # fmt: skip


def options_of(objective: Any, labelled: bool) -> dict[str, Any]:
    """List what the encoding of a module depends on, its encoder aside.

    Raises:
        Unknown: the module is of another package, and does not say it itself.
    """
    kind = type(objective)
    if not _is_own(kind) and "encoding_options" not in vars(kind):
        raise Unknown(f"{kind.__qualname__} has no encoding_options of its own")
    described = {"objective": f"{kind.__module__}.{kind.__qualname__}", "labelled": labelled}
    if not _is_own(kind):
        try:
            described["source"] = inspect.getsource(kind)
        except (OSError, TypeError):
            raise Unknown(f"{kind.__qualname__} has no source file") from None
    return described | objective.encoding_options()


def describe(value: Any) -> Any:
    """Describe a value as JSON: plain ones, objects of this package by their attributes, files by what is in them.

    Raises:
        Unknown: anything else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return [[describe(k), describe(v)] for k, v in value.items()]
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(json.dumps, map(describe, value)))
    kind = type(value)
    if not _is_own(kind) or not hasattr(value, "__dict__"):
        raise Unknown(f"{kind.__qualname__}")
    found: dict[str, Any] = {"class": f"{kind.__module__}.{kind.__qualname__}"}
    for name, item in vars(value).items():
        if isinstance(getattr(kind, name, None), cached_property):
            continue  # made from the others
        if isinstance(value, Reader) and name in _PATHS:
            found[name] = _contents(item)
        elif isinstance(value, Reader) and isinstance(item, str) and Path(item).exists():
            raise Unknown(f"{kind.__qualname__}.{name} may be a file")
        else:
            found[name] = describe(item)
    return found


def _contents(path: str | Sequence[str]) -> list[Any]:
    """Describe the files of a reader by their names and contents; of a folder all that lie in it."""
    found: list[Any] = []
    for one in [path] if isinstance(path, str) else path:
        if not (place := Path(one)).exists():
            raise Unknown(f"{one} is no file")  # of the hub, or missing, which the reader says best
        for file in sorted(f for f in place.rglob("*") if f.is_file()) if place.is_dir() else [place]:
            try:
                with file.open("rb") as opened:
                    found.append([str(file), hashlib.file_digest(opened, "sha256").hexdigest()])
            except OSError as error:
                raise Unknown(str(error)) from None
    return found


def _is_own(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "stepverify"


def _tokenizer(tokenizer: Any) -> list[Any]:
    kind = type(tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or kind.__module__.partition(".")[0] != "transformers":
        raise Unknown(f"{kind.__qualname__} is no tokenizer of transformers with a tokenizer.json")
    ids = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    special = bool(getattr(tokenizer, "split_special_tokens", False))
    return [kind.__qualname__, _sha(backend.to_str().encode()), ids, special]


@cache
def _code() -> str:
    """Hash this package: an edit of a reader or of the encoder gives other examples."""
    package = Path(str(files("stepverify")))
    found = sorted([*package.rglob("*.py"), *package.rglob("*.txt")])
    return _hashed([[str(path.relative_to(package)), _sha(path.read_bytes())] for path in found])


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hashed(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()
