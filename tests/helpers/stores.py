"""Small stores of examples, for the tests of what is done with them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from multiprocessing import Queue
from pathlib import Path

from stepverify.data.encode import Example
from stepverify.data.store import ExampleStore
from stepverify.data.table import ExampleTable, TableWriter
from stepverify.readers.base import ReasonCounter
from stepverify.records import Solution


def example(
    number: int, tokens: int = 3, targets: list[float] | None = None, problem: str = "p", lm: int = 0
) -> Example:
    """An example of tokens that are all its number."""
    record = Solution(id=f"{problem}#{number}", problem_id=problem, problem=f"{problem}?", steps=["1"])
    targets = [1.0] if targets is None else targets
    return Example([number] * tokens, list(range(len(targets))), targets, record, list(range(lm)))


def table_of(*examples: Example) -> ExampleTable:
    """A table in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="stepverify-tests-"))
    writer = TableWriter(folder)
    for e in examples:
        writer.add(e)
    writer.finish(len(examples), ReasonCounter(), ReasonCounter())
    return ExampleTable(folder, temporary=True)


def store_of(*examples: Example, denominator: Callable[[Example], float | None] | None = None) -> ExampleStore:
    """A store of all of them."""
    return ExampleStore(table_of(*examples), denominator)


def read_into(store: ExampleStore, queue: Queue) -> None:
    """What a worker process sees of a store."""
    queue.put((list(store), [*store.sequences], store.weights.tolist()))


def solution(number: int, problem: str = "p") -> Solution:
    return Solution(id=f"{problem}#{number}", problem_id=problem, problem="?", steps=["1"])


def examples_of(sequences: list[list[int]], targets: list[float] | None = None) -> list[Example]:
    """Read at every token; the targets differ between sequences, so shared positions have several."""
    wanted = targets or [i / 7 for i in range(len(sequences))]
    return [
        Example(ids, list(range(len(ids))), [t] * len(ids), solution(i))
        for i, (ids, t) in enumerate(zip(sequences, wanted, strict=True))
    ]
