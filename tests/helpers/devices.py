"""Solutions that are read on several devices, and what each of them notes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepverify.jsonl import write_records
from tests.helpers.fits import thirteen

UNTIED = {"path": "lit_configs/quickstart/base", "weights": "random", "overrides": {"tie_word_embeddings": False}}


def judged(folder: Path, count: int = 13) -> Path:
    """Graded solutions, correct where they are long."""
    write_records(folder / "part-00000.jsonl", thirteen(lambda i: {"correct": i % 4 > 1 or i == 4})[:count])
    return folder


FSDP2 = ("--config", "lit_configs/overlays/fsdp2.yaml")


def reader(path: Path) -> dict[str, Any]:
    return {"class_path": "stepverify.readers.Solutions", "init_args": {"path": str(path)}}
