"""Solutions that are read on several devices, and what each of them notes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import lightning

from stepverify.data.batch import Batch
from stepverify.jsonl import write_records
from tests.helpers.fits import thirteen
from tests.helpers.runs import BACKBONE, config

UNTIED = BACKBONE | {"overrides": BACKBONE["overrides"] | {"tie_word_embeddings": False}}


def judged(folder: Path, count: int = 13) -> Path:
    """Graded solutions, correct where they are long."""
    write_records(folder / "part-00000.jsonl", thirteen(lambda i: {"correct": i % 4 > 1 or i == 4})[:count])
    return folder


FSDP2 = ("--config", "lit_configs/overlays/fsdp2.yaml")


def reader(path: Path) -> dict[str, Any]:
    return {"class_path": "stepverify.readers.Solutions", "init_args": {"path": str(path)}}


IDS = Counter(s.id for s in thirteen(lambda i: {}))


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


def frozen_head(tiny_model_dir: Path, **changes: Any) -> dict[str, Any]:
    """An outcome verifier with a linear head on a model whose output matrix is its own: no loss reads that."""
    return {
        "kind": "OutcomeVerifier", "model__init_args__head": "linear",
        "model__init_args__backbone": {"path": str(tiny_model_dir), "overrides": {"tie_word_embeddings": False}}, **changes,
    }  # fmt: skip


def joint(root: Path, **changes: Any) -> str:
    """A configuration of two epochs of 13 solutions, and 2 more for the LM loss, in which each rank notes what it reads."""
    folder = root.parent
    model = frozen_head(folder, model__init_args__backbone=UNTIED, data__lm=reader(judged(folder / "lm", 2)))
    settings = {
        "data__batch_size": 2, "data__lm_ratio": 2 / 13, "data__eval_pack_tokens": 64, "model__init_args__lm_weight": 1.0,
        "trainer__callbacks": [{"class_path": "tests.helpers.devices.Seen", "init_args": {"folder": str(root / "seen")}}],
    }  # fmt: skip
    return config(root=root, data=judged(folder / "data"), **model | settings | changes)
