"""Grade pairs of a reference and a predicted answer from any source."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from sampling.labelling.answer_fallback import Unstated
from sampling.labelling.timeouts import Timeouts
from sampling.runtime.progress import Progress
from stepverify import trial
from stepverify.answers import Extracted, Grader
from stepverify.jsonl import check_output, read_json_lines, shards, write_lines
from stepverify.readers.base import entry
from stepverify.records import InputError

_CHUNK = 1024  # pairs graded, and kept in memory, at a time


class Pair(NamedTuple):
    """Hold one line of the input: a reference and a predicted answer."""

    id: str
    gold: str | None
    predicted: str | None


def grade(
    input: Path, output: Path, solutions: bool = False, time_limit: float = 3.0, num_workers: int | None = None
) -> None:
    """Grade predicted answers against reference answers.

    Reads lines ``{"id", "gold", "pred"}`` and writes lines ``{"id", "correct"}`` in the same order. ``gold`` and
    ``pred`` are answers as they were written, in LaTeX or plain text, or null: a missing answer equals nothing.
    ``correct`` is true, false, or null if reading or comparing the answer timed out. Other keys are ignored.

    Args:
        input: a file of such lines (``.gz`` too), or a folder of them.
        output: the file to write; an existing one is replaced once the new one is complete.
        solutions: treat ``pred`` as a whole solution: the answer that it states is graded, and one that states none is
            incorrect. Otherwise ``pred`` is read as an answer if possible, else its stated answer is taken.
        time_limit: seconds of CPU time that reading or comparing one answer may take. A warning is printed if more than
            1 % take longer.
        num_workers: processes that read and compare answers; null uses all cores that this process may use.

    Raises:
        InputError: a line without these keys, or with a duplicate id; an output that is a folder, a link or a file of
            another kind. Found before anything is graded.
    """
    if output.resolve() in [shard.resolve() for shard in shards(input)]:
        raise InputError(f"{output}: is the input, expected the name of another file to write")
    check_output(output)
    counts, found, late = Counter[str](), Unstated("solutions"), Timeouts("pairs", time_limit)
    with Grader(num_workers, time_limit) as grader:
        total = _check(input)
        start = time.monotonic()
        with Progress("grade", "pairs", total) as progress:
            pairs = (pair for _, pair in _located(input))
            write_lines(output, _lines(pairs, grader, counts, found if solutions else None, late, progress))
    seconds = time.monotonic() - start
    print(
        f"{output}: {total:,} pairs, {counts['correct']:,} correct ({counts['correct'] / total:.1%}), "
        f"{counts['no answer']:,} with no answer, {counts['timed out']:,} timed out, {total / seconds:,.0f} pairs/s"
    )
    found.warn("they count as incorrect")
    late.warn("they have no verdict")


def _check(input: Path) -> int:
    """Check all lines of the input before grading, and return their number."""
    first: dict[str, str] = {}
    for where, pair in _located(input):
        if pair.id in first:
            raise InputError(f"{where}: key 'id': {pair.id!r} is that of {first[pair.id]}")
        first[pair.id] = where
    return len(first)


def _located(input: Path) -> Iterator[tuple[str, Pair]]:
    rows = (row for shard in shards(input) for row in read_json_lines(shard))
    for where, row in trial.first(rows):
        yield where, Pair(entry(where, row, "id", str), _answer(where, row, "gold"), _answer(where, row, "pred"))


def _answer(where: str, row: Any, key: str) -> str | None:
    return None if row.get(key, "") is None else entry(where, row, key, str)


def _lines(
    pairs: Iterator[Pair], grader: Grader, counts: Counter[str], found: Unstated | None, late: Timeouts,
    progress: Progress,
) -> Iterator[str]:  # fmt: skip
    while chunk := list(islice(pairs, _CHUNK)):
        answers = [Extracted(pair.predicted) for pair in chunk]
        if found is not None:
            answers = grader.extract(pair.predicted or "" for pair in chunk)
            for pair, read in zip(chunk, answers, strict=True):
                found.add(pair.predicted or "", stated=read.answer is not None or read.timed_out)
        verdicts = grader.grade((pair.gold, read.answer) for pair, read in zip(chunk, answers, strict=True))
        for pair, read, verdict in zip(chunk, answers, verdicts, strict=True):
            correct = None if read.timed_out else verdict
            answered = read.timed_out or bool((pair.gold or "").strip() and (read.answer or "").strip())
            counts.update({"correct": correct is True, "no answer": not answered, "timed out": correct is None})
            late.add(pair.id, read.answer if answered else None, timed_out=correct is None)
            yield json.dumps({"id": pair.id, "correct": correct}, ensure_ascii=False) + "\n"
        progress.add(len(chunk))
