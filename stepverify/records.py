"""The record types that flow between stages, and their JSON Lines files. Standard library only.

A stage reads a folder of ``*.jsonl`` shards and writes another one::

    problems ─ generate ▶ solutions ─ label ▶ labelled solutions ─ score ▶ scored ─ rank ▶ rankings

Every problem is a :class:`Problem`; from sampling to scoring every line is a :class:`Solution`
that fills up on its way; ranking writes one :class:`Ranking` a problem, ``select`` a
:class:`RatingSheet` for each solution that people are to rate, whoever draws completions of step
prefixes keeps them as :class:`Rollout`, and whoever asks a judge keeps what it said as :class:`Judgement`.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import math
import os
import sys
import types
import typing
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

MANIFEST = "manifest.json"


class InputError(ValueError):
    """Bad input by the user: one message with file, line, key and value. The programs exit with 2."""

    @classmethod
    def within(cls, error: BaseException | None) -> InputError | None:
        """The bad input behind ``error``: the configuration parser wraps what a class raises in its own errors."""
        while error is not None and not isinstance(error, cls):
            error = error.__cause__ or error.__context__
        return error


@dataclass(kw_only=True, slots=True)
class Problem:
    """A question, its final answer where it is known, and a worked solution where there is one."""

    id: str
    problem: str
    answer: str | None = None
    steps: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class StepLabel:
    """What is known of one step: a human rating, the count of a Monte Carlo estimate, or its value alone.

    Attributes:
        rating: 1 right, 0 neutral, -1 wrong (PRM800K's scale).
        num_right: rollouts from the end of this step that reached the right answer ...
        num_rollouts: ... out of so many (Math-Shepherd, section 3.3). Counts are kept, so that hard,
            soft and thresholded labels are choices of whoever reads them.
        value: chance in [0, 1] that the step is right, where others released no counts but this.
    """

    rating: int | None = None
    num_right: int | None = None
    num_rollouts: int | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        counted = self.num_right is not None and self.num_rollouts is not None
        kinds = (self.rating is not None) + counted + (self.value is not None)
        if kinds != 1 or (self.num_right is None) != (self.num_rollouts is None):
            raise InputError(f"a step label is a rating, or num_right and num_rollouts, or a value, not {self}")
        if self.value is not None and not 0 <= self.value <= 1:
            raise InputError(f"value: expected 0 to 1, got {self.value!r}")
        if self.rating is not None and self.rating not in (-1, 0, 1):
            raise InputError(f"rating: expected -1, 0 or 1, got {self.rating!r}")
        if counted and not 0 <= self.num_right <= self.num_rollouts >= 1:  # type: ignore[operator]
            raise InputError(f"num_right: expected 0 to num_rollouts, got {self.num_right} of {self.num_rollouts}")

    @property
    def share(self) -> float | None:
        """Chance that the step is right, by rollouts or as released; None of a rating."""
        if self.num_right is None or self.num_rollouts is None:
            return self.value
        return self.num_right / self.num_rollouts


@dataclass(kw_only=True, slots=True)
class Solution:
    """One solution of one problem, with all that is known of it so far.

    Attributes:
        id: problem id and sample index, ``gsm8k/test/7#3``.
        answer: the reference answer of the problem.
        steps: the lines of the solution, the final-answer line included.
        token_ids: the sampled tokens, exactly as the engine drew them.
        finish: ``stop`` (ended by itself) or ``length`` (cut off at the token limit).
        forced: values in it that the calculator put in; right ones that were drawn do not count.
        predicted: the final answer that was extracted from the steps; None where there is none.
        correct: whether ``predicted`` equals ``answer``.
        step_labels: one entry a step; None where nothing is known of it.
        scores: verifier name → its values along the solution, in [0, 1]: one a step from a process
            reward model, one a token or the last one alone from an outcome verifier.
        pieces: verifier name → the text of the token behind each of its values, where they are values of tokens; some
            are empty, see :meth:`stepverify.data.encode.SolutionEncoder.pieces`.
    """

    id: str
    problem_id: str
    problem: str
    steps: list[str]
    answer: str | None = None
    token_ids: list[int] | None = None
    finish: str | None = None
    seed: int | None = None
    generator: str | None = None
    forced: int = 0
    predicted: str | None = None
    correct: bool | None = None
    step_labels: list[StepLabel | None] | None = None
    scores: dict[str, list[float]] = field(default_factory=dict)
    pieces: dict[str, list[str]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.finish not in (None, "stop", "length"):
            raise InputError(f"finish: expected 'stop' or 'length', got {self.finish!r}")
        if self.step_labels is not None and len(self.step_labels) != len(self.steps):
            raise InputError(
                f"step_labels: expected one for each of {len(self.steps)} steps, got {len(self.step_labels)}"
            )

    @classmethod
    def of(cls, problem: Problem, index: int, steps: list[str], **known: Any) -> Solution:
        """The ``index``-th solution of ``problem``; ``meta`` goes to what the problem has."""
        return cls(
            id=f"{problem.id}#{index}", problem_id=problem.id, problem=problem.problem,
            answer=problem.answer, steps=steps, meta=problem.meta | known.pop("meta", {}), **known,
        )  # fmt: skip


@dataclass(kw_only=True, slots=True)
class Ranking:
    """What every rule of choosing makes of the samples of one problem.

    Attributes:
        sizes: the numbers of samples N at which the curves are given.
        curves: rule (``majority``, ``prm/best_of_n``, ...) → the chance to be right at each N, over
            random subsets of N of the samples.
        choices: rule → id of the solution that it picks from all samples; None where it picks none.
    """

    problem_id: str
    num_samples: int
    sizes: list[int]
    curves: dict[str, list[float]]
    answer: str | None = None
    choices: dict[str, str | None] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class Rollout:
    """Completions of one step prefix, drawn together to learn what the prefix is worth.

    Attributes:
        id: the problem's id, a digest of the prefix, and which of its completions the first one is.
        steps: the prefix.
        seed: that the first completion was drawn with; the next one with ``seed + 1``.
        completions: the texts behind the prefix.
        finish: as of a :class:`Solution`, for each of them.
        answers: their final answers; None where there is none.
        right: whether that is the problem's answer.
        tokens: drawn for all of them.
    """

    id: str
    problem_id: str
    steps: list[str]
    seed: int
    completions: list[str]
    finish: list[str]
    answers: list[str | None]
    right: list[bool]
    tokens: int


@dataclass(kw_only=True, slots=True)
class RatingSheet:
    """A solution as it is laid before people who rate its steps.

    Attributes:
        ratings: one entry a step, on PRM800K's scale: 1 right, 0 neutral, -1 wrong; None where nobody has rated it.
        answer: the reference answer of the problem.
        scores: what a verifier says of the steps; empty unless it was asked for, since it would prime who rates.
        meta: remarks of whoever rates.
    """

    id: str
    problem_id: str
    problem: str
    answer: str | None = None
    steps: list[str]
    ratings: list[int | None]
    scores: list[float] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.ratings) != len(self.steps):
            raise InputError(f"ratings: expected one for each of {len(self.steps)} steps, got {len(self.ratings)}")
        for i, rating in enumerate(self.ratings):
            if rating not in (-1, 0, 1, None):
                raise InputError(f"key 'ratings[{i}]': expected -1, 0, 1 or null, got {rating!r}")

    @property
    def rated(self) -> bool:
        """Whether anybody has rated any of its steps."""
        return any(rating is not None for rating in self.ratings)


@dataclass(kw_only=True, slots=True)
class Judgement:
    """What a judge said about the first wrong step of one solution. Steps are counted from 1; 0 is none of them.

    Attributes:
        id: of the solution.
        labelled: the first wrong step by the labels that were judged.
        seed: that the first answer was drawn with; the next one with ``seed + 1``.
        texts: the judge's answers, one a vote.
        finish: as of a :class:`Solution`, for each of them.
        verdicts: the first wrong step that each of them names; None where it names none of the solution's, nor none.
        tokens: drawn for all of them.
    """

    id: str
    labelled: int
    seed: int
    texts: list[str]
    finish: list[str]
    verdicts: list[int | None]
    tokens: int


AnyRecord = Problem | Solution | Ranking | Rollout | RatingSheet | Judgement
Record = TypeVar("Record", Problem, Solution, Ranking, Rollout, RatingSheet, Judgement)


# ── dataclass ↔ JSON ──────────────────────────────────────────────────────────────────────────────


def dump_line(record: AnyRecord) -> str:
    """One line of JSON, line end included. Fields at their default are left out.

    Raises:
        ValueError: a number is not finite, so that no reader would take the line.
    """
    return json.dumps(_plain(record), ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def _plain(record: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, default in _defaults(record.__class__).items():
        value = getattr(record, name)
        if name == "step_labels" and value is not None:
            value = [label and _plain(label) for label in value]
        if value != default:
            plain[name] = value
    return plain


def parse_record(kind: type[Record], data: Any) -> Record:
    """Build a record from decoded JSON.

    Raises:
        InputError: naming the key and the value that is missing, unknown or of the wrong type.
    """
    return cast(Record, _convert(kind, data, ""))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


@cache
def _defaults(kind: type) -> dict[str, Any]:
    fields = dataclasses.fields(kind)
    return {f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory() for f in fields}


@cache
def _required(kind: type) -> frozenset[str]:
    missing = dataclasses.MISSING
    return frozenset(f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing)


@cache
def _shape(expected: Any) -> tuple[bool, Any, tuple[Any, ...]]:
    return dataclasses.is_dataclass(expected), typing.get_origin(expected), typing.get_args(expected)


def _convert(expected: Any, value: Any, key: str) -> Any:
    if type(value) is expected and (expected is not float or math.isfinite(value)):
        return value
    is_record, origin, parts = _shape(expected)
    if is_record:
        if not isinstance(value, dict):
            raise _mismatch(key, "an object", value)
        hints, prefix = _hints(expected), f"{key}." if key else ""
        if missing := _required(expected) - value.keys():
            raise InputError(f"missing key '{prefix}{min(missing)}'; found {sorted(value)}")
        if unknown := value.keys() - hints.keys():
            raise InputError(f"unknown key '{prefix}{min(unknown)}'; a {expected.__name__} has {sorted(hints)}")
        return expected(**{k: _convert(hints[k], v, prefix + k) for k, v in value.items()})
    if origin is types.UnionType:
        if value is None and type(None) in parts:
            return None
        return _convert(parts[0], value, key)
    if origin is list:
        if not isinstance(value, list):
            raise _mismatch(key, "a list", value)
        if parts[0] in (int, str) and all(type(item) is parts[0] for item in value):
            return value
        return [_convert(parts[0], item, f"{key}[{i}]") for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise _mismatch(key, "an object", value)
        return {k: _convert(parts[1], item, f"{key}.{k}") for k, item in value.items()}
    if expected is Any:
        return value
    number = expected is float and isinstance(value, int) and not isinstance(value, bool)
    if not number and type(value) is not expected:
        raise _mismatch(
            key, {str: "a string", int: "an integer", float: "a number", bool: "true or false"}[expected], value
        )
    if expected is float and not abs(value) <= sys.float_info.max:  # an integer of JSON can be larger
        raise _mismatch(key, "a finite number", value)
    return value


def _mismatch(key: str, expected: str, value: Any) -> InputError:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return InputError(f"key '{key}': expected {expected}, got {shown[:80] + '…' if len(shown) > 80 else shown}")


# ── files ─────────────────────────────────────────────────────────────────────────────────────────


def shards(path: str | Path) -> list[Path]:
    """The JSON Lines files behind ``path``: itself, or the shards of a finished stage's folder.

    Raises:
        InputError: nothing there, an empty folder, or a stage that was not run to its end.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    manifest = path / MANIFEST
    if manifest.is_file():
        try:
            described = json.loads(manifest.read_text())
        except ValueError as error:
            raise InputError(f"{manifest}: not JSON: {error}") from None
        if isinstance(described, dict) and not described.get("finished", True):
            raise InputError(
                f"{path}: this stage has not finished; run it again with the same configuration to resume it"
            )
    found = sorted(p for p in path.iterdir() if p.name.endswith((".jsonl", ".jsonl.gz")))
    if not found:
        raise InputError(f"{path}: holds no .jsonl or .jsonl.gz file")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def read_json_lines(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Yield ``(file:line, decoded value)`` for each line of one file; ``.gz`` is read as it is.

    Raises:
        InputError: no line at all, or one that is not JSON.
    """
    path = Path(path)
    empty = True
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                empty = False
                try:
                    yield f"{path}:{number}", _decode(line)
                except (ValueError, RecursionError) as error:
                    said = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
                    raise InputError(f"{path}:{number}: not JSON ({said}): {line.strip()[:80]}") from None
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not readable as UTF-8 JSON Lines: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if empty:
        raise InputError(f"{path}: the file is empty")


def read_records(path: str | Path, kind: type[Record]) -> Iterator[Record]:
    """Yield the records of a file or of a finished stage's folder, in order.

    Raises:
        InputError: as ``file:line: key 'k': expected …, got …``.
    """
    for shard in shards(path):
        for where, data in read_json_lines(shard):
            try:
                record = parse_record(kind, data)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            yield record


def write_records(path: str | Path, records: Iterable[AnyRecord]) -> int:
    """Write one shard as a whole: either the complete file appears, or none. Returns the count."""
    return write_lines(path, map(dump_line, records))


def write_lines(path: str | Path, lines: Iterable[str]) -> int:
    """The same of lines of text, line ends included."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft, count = path.with_name(f".{path.name}.draft"), 0
    try:
        with draft.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(line)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def fingerprint(path: str | Path) -> str:
    """SHA-256 over the contents of all shards behind ``path``: the identity of a stage's input."""
    digest = hashlib.sha256()
    for shard in shards(path):
        with shard.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
