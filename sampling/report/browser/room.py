"""Decide which problems a page has room for, before they are read whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from stepverify.jsonl import read_records


class Line(Struct):
    """Read no more of a record than says whose it is."""

    id: str
    problem_id: str


def count_by_problem(path: Path) -> Counter[str]:
    """Count the records of each problem, in the order in which the problems come."""
    return Counter(line.problem_id for line in read_records(path, Line))


def first_that_fit(sizes: Mapping[str, int], limit: int) -> set[str]:
    """Return the first problems whose sizes add up to a limit at most, one at least."""
    taken, left = set[str](), limit
    for problem, size in sizes.items():
        if taken and size > left:
            break
        taken.add(problem)
        left -= size
    return taken
