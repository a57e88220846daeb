"""Assemble the page of the browser: one file that needs no network.

Scripts and styles are inlined, data are compressed. A content security policy names the scripts of this package by
hash, and nothing else: no text of a solution can become a script, and nothing can be asked for.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from sampling.report.browser.shards import dumps, pack
from sampling.report.render import render
from stepverify import atomic

SCRIPTS = (
    "data",
    "filters",
    "text",
    "list",
    "steps",
    "tokens",
    "problem",
    "tree",
    "ratings",
    "rating",
    "toolbar",
    "app",
)
"""Scripts in the order in which they are joined."""
_PLACE = "<!-- data -->"


@contextmanager
def page(path: Path, title: str) -> Iterator[tuple[IO[str], dict[str, Any]]]:
    """Write a page: fill in its shards and its index.

    Yields:
        a file for shards, and a dictionary for the index, which comes before them in the page: it is painted while they
        are read.
    """
    with TemporaryFile("w+", encoding="ascii") as shards, atomic.replacing(path) as draft:
        index: dict[str, Any] = {}
        yield shards, index
        script, mathematics = _script(), _resource("vendor/temml.min.js")
        head, tail = render(
            "browser/page.html", title=title, style=_resource("page.css"), script=script, index=pack(dumps(index)),
            mathematics=_packed("vendor/temml.min.js"), licence=_resource("vendor/temml.LICENSE"),
            hashes=[_hash(script), _hash(mathematics)],
        ).split(_PLACE)  # fmt: skip
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            file.write(head)
            shards.seek(0)
            shutil.copyfileobj(shards, file)
            file.write(tail)


@cache
def _resource(name: str) -> str:
    return files("sampling.report").joinpath("templates/browser", name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    parts = "\n".join(_resource(f"{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();\n'


@cache
def _packed(name: str) -> str:
    return pack(dumps(_resource(name)))


def _hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
