"""Define the interface of readers, and helpers for reading others' formats."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from random import Random
from typing import Any, Literal, TypeVar

from stepverify.foreign import describe_row
from stepverify.keys import KeySet
from stepverify.records import InputError, Problem, Solution

Fold = Literal["all", "train", "validation"]
Item = TypeVar("Item")
Kind = TypeVar("Kind")
_KINDS = {str: "a string", int: "an integer", bool: "true or false", list: "a list", dict: "an object"}


class ReasonCounter(Counter[str]):
    """Count by reason, and keep the first place of each reason.

    A place is an id, or ``file:line``.
    """

    def __init__(self, counts: Mapping[str, int] | None = None, first: Mapping[str, str] | None = None) -> None:
        super().__init__(counts or {})
        self.first = dict(first or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return ReasonCounter, (dict(self), self.first)

    def note(self, reason: str, where: str) -> None:
        """Count one occurrence."""
        self[reason] += 1
        self.first.setdefault(reason, where)

    def clear(self) -> None:
        """Reset all counts."""
        super().clear()
        self.first.clear()

    def add(self, other: ReasonCounter) -> None:
        """Add the counts of another counter."""
        self.update(other)
        self.first = other.first | self.first

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {reason} ({self.first[reason]})" for reason, count in self.most_common())

    def plain(self) -> dict[str, dict[str, Any]]:
        """Convert to plain values for a manifest: reason → ``count`` and ``first``."""
        return {reason: {"count": count, "first": self.first[reason]} for reason, count in self.most_common()}


class Reader(ABC):
    """Define a source of problems and their solutions."""

    @cached_property
    def left_out(self) -> ReasonCounter:
        """Return why solutions were left out in the last reading, with counts."""
        return ReasonCounter()

    @cached_property
    def noted(self) -> ReasonCounter:
        """Return notes on the solutions read last, with counts.

        For users, about solutions that were not left out.
        """
        return ReasonCounter()

    def counted(self) -> dict[str, Any]:
        """Return the non-empty counts of ``left_out`` and ``noted`` for a manifest."""
        return {name: tally.plain() for name, tally in (("left_out", self.left_out), ("noted", self.noted)) if tally}

    @property
    def described(self) -> str:
        """Return its class, and the file that it reads, for messages."""
        path = getattr(self, "path", None)
        return type(self).__name__ if path is None else f"{type(self).__name__} of {path}"

    @abstractmethod
    def problems(self) -> Iterator[Problem]:
        """Yield the problems, in a fixed order.

        Raises:
            InputError: with file, line, key and value.
        """

    def solutions(self) -> Iterator[Solution]:
        """Yield solutions: by default the worked solution of each problem.

        Problems without one are skipped.
        """
        for problem in self.problems():
            if problem.steps:
                yield Solution.of(problem, 0, problem.steps, finish="stop", predicted=problem.answer, correct=True)


def once(solutions: Iterable[Solution], source: str) -> Iterator[Solution]:
    """Yield solutions; refuse an id that occurs twice.

    Raises:
        InputError: an id occurs twice.
    """
    seen = KeySet()
    for solution in solutions:
        if not seen.add(solution.id):
            raise InputError(f"{source}: solution id {solution.id!r} occurs twice")
        yield solution


def entry(where: str, data: Any, key: str, kind: type[Kind]) -> Kind:
    """Return the value under ``key`` of a decoded object.

    Raises:
        InputError: not an object, the key is missing, or its value has another type.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected an object, got {data!r:.80}")
    if key not in data:
        raise InputError(f"{where}: missing key '{key}'; found {sorted(data)}{describe_row(data)}")
    if not isinstance(data[key], kind) or (kind is int and isinstance(data[key], bool)):
        raise InputError(f"{where}: key '{key}': expected {_KINDS[kind]}, got {data[key]!r:.80}")
    return data[key]


def optional(where: str, data: Any, key: str, kind: type[Kind]) -> Kind | None:
    """Return the value under ``key``; None if missing or null.

    Raises:
        InputError: as :func:`entry`, for a value of another type.
    """
    return None if isinstance(data, dict) and data.get(key) is None else entry(where, data, key, kind)


def texts(where: str, data: Any, key: str) -> list[str]:
    """Return the list of strings under ``key``.

    Raises:
        InputError: as :func:`entry`.
    """
    found = entry(where, data, key, list)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise InputError(f"{where}: key '{key}[{i}]': expected a string, got {text!r:.80}")
    return found


def one_a_step(where: str, data: Any, key: str, num_steps: int) -> list[Any]:
    """Return the list under ``key``, which must have one value per step.

    Raises:
        InputError: as :func:`entry`, or it has more or fewer values.
    """
    found = entry(where, data, key, list)
    if len(found) != num_steps:
        raise InputError(f"{where}: key '{key}': expected {num_steps} values, one per step, got {len(found)}")
    return found


def lines(text: str) -> list[str]:
    """Split a text into steps: its non-empty lines, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def distinct(solutions: Iterable[Solution]) -> Iterator[Problem]:
    """Yield the problems of solutions, each once."""
    seen = set()
    for s in solutions:
        if s.problem_id not in seen:
            seen.add(s.problem_id)
            yield Problem(id=s.problem_id, problem=s.problem, answer=s.answer, meta=s.meta)


def same_steps(steps: Sequence[str]) -> bytes:
    """Hash steps to 16 bytes, ignoring differences in spaces and line ends."""
    return hashlib.blake2b("\n".join(" ".join(step.split()) for step in steps).encode(), digest_size=16).digest()


def take(items: Iterable[Item], start: int, limit: int | None, shuffle: int | None = None) -> Iterator[Item]:
    """Skip ``start`` items, then yield at most ``limit``.

    ``shuffle`` is a seed to shuffle them first; None keeps their order.

    Raises:
        InputError: ``start`` or ``limit`` is negative.
    """
    for key, value in (("start", start), ("limit", limit)):
        if value is not None and value < 0:
            raise InputError(f"{key}: expected >= 0, got {value}")
    if shuffle is not None:
        items = list(items)
        Random(shuffle).shuffle(items)
    return islice(items, start, None if limit is None else start + limit)


def in_fold(problem_id: str, fold: Fold, validation_fraction: float) -> bool:
    """Check whether a problem's id hashes to a fold.

    All solutions of a problem are in the same fold.

    Raises:
        InputError: the fraction is not in [0, 1), or the validation fold of fraction 0 is requested.
    """
    if not 0.0 <= validation_fraction < 1.0:
        raise InputError(f"validation_fraction: expected 0 <= fraction < 1, got {validation_fraction}")
    if fold == "validation" and not validation_fraction:
        raise InputError("validation_fraction: 0 leaves nothing for fold: validation")
    if fold == "all":
        return True
    number = int.from_bytes(hashlib.sha256(problem_id.encode()).digest()[:8], "big") / 2**64
    return (number < validation_fraction) == (fold == "validation")
