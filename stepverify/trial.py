"""Limit a trial of a stage to the first problems of what it reads: ``--limit N``.

One place decides for all stages: files and folders are limited where their records are read
(:func:`stepverify.jsonl.read_located`), readers by :func:`limit_reader`, and every manifest gets :func:`described`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepverify.errors import InputError

if TYPE_CHECKING:
    from stepverify.readers import Reader
    from stepverify.records import Problem, Solution

_KEYS = ("input", "problems", "scores")  # of stages: what their problems come from


@dataclass(frozen=True)
class _Trial:
    """Hold the number of problems, and the paths that are limited."""

    number: int
    paths: frozenset[Path]


_trial: ContextVar[_Trial | None] = ContextVar("trial", default=None)


@contextmanager
def limited(number: int | None, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Limit what is read in the block to the first problems, in the order in which they are read.

    Limited are ``input``, ``problems`` and ``scores``; stages themselves limit the reference labels that others are
    compared with, and the problems that searches have in common. Examples, validation data and what is reused are not
    limited.

    Args:
        number: of problems; None limits nothing.
        values: arguments of the stage; yielded with limited readers.

    Raises:
        InputError: a number below 1.
    """
    if number is None:
        yield dict(values)
        return
    if number < 1:
        raise InputError(f"limit: {number}: expected 1 or more problems")
    sources = {key: values[key] for key in _KEYS if values.get(key) is not None}
    paths = frozenset(source for source in sources.values() if isinstance(source, Path))
    before = _trial.set(_Trial(number, paths))
    try:
        yield {**values, **{key: limit_reader(found) for key, found in sources.items() if not isinstance(found, Path)}}
    finally:
        _trial.reset(before)


def described() -> dict[str, int]:
    """Return what a manifest has besides the configuration of the full run."""
    return {} if (trial := _trial.get()) is None else {"limit": trial.number}


def first(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the first items of those that are one a problem."""
    return islice(items, described().get("limit"))


def of_path(path: str | Path) -> Callable[[str], bool] | None:
    """Return what tells in one reading of a path whether a problem's id is among the first; None for all problems."""
    trial = _trial.get()
    return _among_first(trial.number) if trial is not None and Path(path) in trial.paths else None


def limit_reader(reader: Reader) -> Reader:
    """Return a reader of the first problems of another one, and of all of their solutions."""
    if (trial := _trial.get()) is None:
        return reader
    number, shorter = trial.number, copy.copy(reader)

    def problems() -> Iterator[Problem]:
        return islice(reader.problems(), number)

    def solutions() -> Iterator[Solution]:
        wanted = _among_first(number)
        return (solution for solution in reader.solutions() if wanted(solution.problem_id))

    # Of the same class, whose name manifests hold; counts of what was left out are those of the full reader.
    vars(shorter).update(problems=problems, solutions=solutions, left_out=reader.left_out, noted=reader.noted)
    return shorter


def _among_first(number: int) -> Callable[[str], bool]:
    known = set[str]()

    def wanted(problem_id: str) -> bool:
        if len(known) < number:
            known.add(problem_id)
        return problem_id in known

    return wanted
