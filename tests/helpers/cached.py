"""Runs that encode through a cache, and their data."""

from __future__ import annotations

from pathlib import Path

from stepverify.data.encode import SolutionEncoder
from stepverify.data.prepare import encode_all
from stepverify.jsonl import write_records
from stepverify.readers import Reader
from stepverify.records import Solution
from stepverify.template import Template

TEMPLATE = Template(prompt="Q{problem}A")


def write_graded(folder: Path) -> Path:
    """40 graded solutions of 10 problems; one in ten is too long for :class:`Run`."""
    write_records(folder / "part-00000.jsonl", (
        Solution(
            id=f"p/{n}#{s}", problem_id=f"p/{n}", problem=f"a = {n}", steps=[f"{n}+{s}=1" + "1" * 50 * (n == 3), "#1"],
            finish="stop", correct=s % 2 == 0,
        )
        for n in range(10) for s in range(4)
    ))  # fmt: skip
    return folder


class Run:
    """What one process of one run does; ``encoded`` are the ids that it has encoded itself."""

    def __init__(self, tokenizer, folder: Path | None, **changed) -> None:
        self.encoder = SolutionEncoder(tokenizer, changed.pop("template", TEMPLATE), changed.pop("max_length", 40))
        self.folder, self.options, self.encoded = folder, {"last_only": False, **changed}, []

    def encode(self, record: Solution):
        self.encoded.append(record.id)
        targets = [float(bool(record.correct))] * len(record.steps)
        return self.encoder.outcome(record, targets, last_only=self.options["last_only"])

    def __call__(self, reader: Reader, name: str = "fit"):
        return encode_all(
            reader, self.encode, name, encoder=self.encoder, options=self.options, cache=self.folder
        )  # fmt: skip


def tables(folder: Path) -> list[Path]:
    """List tables, and whatever else lies in a cache."""
    return sorted(folder.iterdir())


class Elsewhere(Reader):
    """A reader of another package: its solutions themselves are hashed."""

    def __init__(self, *names: str, left_out: int = 0) -> None:
        self.names, self.count, self.read = names, left_out, 0

    def problems(self):
        yield from ()

    def solutions(self):
        self.read += 1
        self.left_out.clear()
        for _ in range(self.count):
            self.left_out.note("odd", "f:1")
        for name in self.names:
            yield Solution(id=f"{name}#0", problem_id=name, problem=name, steps=["1"], correct=True)
