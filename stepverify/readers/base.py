"""What every reader offers."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any, Literal, TypeVar

from stepverify.records import InputError, Problem, Solution

Fold = Literal["all", "train", "validation"]
Item = TypeVar("Item")
Kind = TypeVar("Kind")
_KINDS = {str: "a string", bool: "true or false", list: "a list", dict: "an object"}


class Reader(ABC):
    """A source of problems, and of the solutions that they come with."""

    @cached_property
    def left_out(self) -> Counter[str]:
        """Reason → number of solutions that the last call of :meth:`solutions` has left out by choice."""
        return Counter()

    @abstractmethod
    def problems(self) -> Iterator[Problem]:
        """Yield the problems, in a fixed order.

        Raises:
            InputError: with file, line, key and value.
        """

    def solutions(self) -> Iterator[Solution]:
        """Yield solutions: by default the worked solution of each problem that has one."""
        for problem in self.problems():
            if problem.steps:
                yield Solution.of(problem, 0, problem.steps, finish="stop", predicted=problem.answer, correct=True)


def entry(where: str, data: Any, key: str, kind: type[Kind]) -> Kind:
    """The value under ``key`` of a decoded object.

    Raises:
        InputError: no object, the key is missing, or its value is of another type.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected an object, got {data!r:.80}")
    if key not in data:
        raise InputError(f"{where}: missing key '{key}'; found {sorted(data)}")
    if not isinstance(data[key], kind):
        raise InputError(f"{where}: key '{key}': expected {_KINDS[kind]}, got {data[key]!r:.80}")
    return data[key]


def lines(text: str) -> list[str]:
    """The steps of a text: its lines, stripped; empty lines are no steps."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def take(items: Iterable[Item], start: int, limit: int | None) -> Iterator[Item]:
    """Skip ``start`` items and yield ``limit`` at most.

    Raises:
        InputError: one of them is negative.
    """
    for key, value in (("start", start), ("limit", limit)):
        if value is not None and value < 0:
            raise InputError(f"{key}: expected >= 0, got {value}")
    return islice(items, start, None if limit is None else start + limit)


def in_fold(problem_id: str, fold: Fold, validation_fraction: float) -> bool:
    """Whether a problem belongs to a fold: by a hash of its id, so all its solutions stay together.

    Raises:
        InputError: the fraction is not between 0 and 1, or a validation fold of nothing is asked for.
    """
    if not 0.0 <= validation_fraction < 1.0:
        raise InputError(f"validation_fraction: expected 0 <= fraction < 1, got {validation_fraction}")
    if fold == "validation" and not validation_fraction:
        raise InputError("validation_fraction: 0 leaves nothing for fold: validation")
    if fold == "all":
        return True
    draw = int.from_bytes(hashlib.sha256(problem_id.encode()).digest()[:8], "big") / 2**64
    return (draw < validation_fraction) == (fold == "validation")
