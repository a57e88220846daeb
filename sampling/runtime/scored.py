"""Scored solutions, read quickly: ranking and reports read each of them, and only part of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepverify import jsonl
from stepverify.consistency import Consistency
from stepverify.records import InputError, Solution


def is_right(solution: Solution) -> bool:
    """Whether the solution counts as right: a right final answer, reached before the token limit.

    Where neither answer is known the verdict came with the solution (ProcessBench), and is taken as it is.
    """
    known = solution.predicted is not None or solution.answer is None
    return bool(solution.correct) and known and solution.finish != "length"


def read_scored(path: Path, *, labels: bool = False) -> Iterator[tuple[str, Solution, int | None]]:
    """Yield ``(file:line, solution, number of tokens)`` of scored solutions.

    As :func:`stepverify.jsonl.read_records` does, in half its time: token ids are only counted, texts of tokens are
    left out, step labels too without ``labels``, and in a line with the keys and types of a good one only scores are
    checked.
    """
    taken: set[tuple[object, ...]] = set()
    seen = Consistency()
    for where, data in (line for shard in jsonl.shards(path) for line in jsonl.read_json_lines(shard)):
        layout: tuple[object, ...] = ()
        num_tokens, of_tokens = None, ()
        if isinstance(data, dict):
            if isinstance(data.get("token_ids"), list):
                num_tokens = len(data.pop("token_ids"))
            of_tokens = data.pop("pieces", None) or ()
            if not labels:
                data.pop("step_labels", None)
            layout = (*data, *map(type, data.values()))
        try:
            if layout in taken and all(map(_is_plain, data.get("scores", {}).values())):
                solution = Solution(**data)
            else:
                solution = jsonl.parse_record(Solution, data)
                if solution.step_labels is None:  # labels are not taken as they are
                    taken.add(layout)
            if not seen.add(where, solution, of_tokens):
                raise InputError(f"id {solution.id!r} occurs in {jsonl.first_place(path, solution)} already")
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        yield where, solution, num_tokens
    seen.check()


def _is_plain(values: Any) -> bool:
    return type(values) is list and {*map(type, values)} <= {float}  # the record checks what they are
