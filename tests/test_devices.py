"""Training that is right on any number of devices: processes on the CPU, with gloo."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import lightning
import pytest
import yaml

from stepverify.data.batch import Batch
from stepverify.jsonl import read_records, write_records
from stepverify.records import Solution
from tests.processes import stepverify
from tests.test_distributed import thirteen
from tests.test_fit import config


class Seen(lightning.Callback):
    """Writes the ids and the loss of every batch, a file a rank."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def _note(self, trainer: lightning.Trainer, stage: str, batch: Batch, loss: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        line = {"epoch": trainer.current_epoch, "ids": [r.id for r in batch.records], "loss": loss}
        with (self.folder / f"{stage}-{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self._note(trainer, "train", batch, outputs["loss"].item())

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self._note(trainer, "val", batch, None)

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self._note(trainer, "test", batch, None)


def seen(root: Path, stage: str, num_ranks: int) -> dict[int, Counter[str]]:
    """How often each id was read, by epoch; every rank has read as many batches."""
    found: dict[int, Counter[str]] = {}
    files = sorted((root / "seen").glob(f"{stage}-*.jsonl"))
    lines = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    assert len(files) == num_ranks
    assert len({len(each) for each in lines}) == 1
    for line in (line for each in lines for line in each):
        found.setdefault(line["epoch"], Counter()).update(line["ids"])
    return found
