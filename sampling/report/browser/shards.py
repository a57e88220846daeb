"""Keep texts on disk by key, and pack them into compressed shards."""

from __future__ import annotations

import base64
import json
import tempfile
import zlib
from array import array
from collections.abc import Hashable, Iterator
from typing import IO, Any

SHARD_BYTES = 1 << 19
"""Size of a shard before compression: a browser unpacks it in some milliseconds."""


def dumps(value: Any) -> str:
    """Encode JSON in ASCII, so that half surrogate pairs survive."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def pack(text: str) -> str:
    """Compress an ASCII text; base64 of zlib's format."""
    return base64.b64encode(zlib.compress(text.encode("ascii"), 6)).decode("ascii")


class Spool:
    """Keep JSON values in a temporary file by key, so that memory holds their places alone.

    All are added before any is read. Use it as a context manager; the file is removed on exit.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
        self._places: dict[Hashable, array[int]] = {}
        self._end = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, key: Hashable, value: Any) -> None:
        """Append a value to those of a key."""
        data = dumps(value).encode("ascii")
        self._file.write(data)
        self._places.setdefault(key, array("q")).extend((self._end, len(data)))
        self._end += len(data)

    def values(self, key: Hashable) -> Iterator[Any]:
        """Yield the values of a key in order."""
        return map(json.loads, self.texts(key))

    def texts(self, key: Hashable) -> Iterator[str]:
        """Yield the values of a key as JSON."""
        places = self._places.get(key, array("q"))
        for begin, length in zip(places[::2], places[1::2], strict=True):
            self._file.seek(begin)
            yield self._file.read(length).decode("ascii")


class Shards:
    """Pack values of problems into shards, which are written to a file when they are full.

    A shard is a JSON object: number of the problem → its value.

    Args:
        file: where shards go, each as a ``<script>`` that is no program.
        name: prefix of their ids in the page.
    """

    def __init__(self, file: IO[str], name: str) -> None:
        self._file, self._name = file, name
        self._pending: list[str] = []
        self._size = 0
        self.number = 0

    def add(self, problem: int, value: str) -> int:
        """Add the value of a problem, as JSON; return the number of its shard."""
        text = f'"{problem}":{value}'
        if self._pending and self._size + len(text) > SHARD_BYTES:
            self.close()
        self._pending.append(text)
        self._size += len(text)
        return self.number

    def close(self) -> None:
        """Write what is pending."""
        if self._pending:
            data = pack("{" + ",".join(self._pending) + "}")
            self._file.write(f'<script type="text/plain" id="{self._name}{self.number}">{data}</script>\n')
            self.number += 1
        self._pending, self._size = [], 0
