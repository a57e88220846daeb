"""Training that is right on any number of devices: processes on the CPU, with gloo."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import lightning

from stepverify.cli import main
from stepverify.data.batch import Batch
from stepverify.jsonl import read_records, write_records
from tests.processes import stepverify
from tests.test_distributed import thirteen
from tests.test_fit import config, weights
from tests.test_interrupt import every


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


def judged(folder: Path, count: int = 13) -> Path:
    """Graded solutions, right where they are long."""
    write_records(folder / "part-00000.jsonl", thirteen(lambda i: {"correct": i % 4 > 1 or i == 4})[:count])
    return folder


FSDP2 = ("--config", "lit_configs/overlays/fsdp2.yaml", "--trainer.strategy.init_args.data_parallel_size")


def test_a_checkpoint_goes_on_under_another_strategy(tmp_path: Path, tiny_model_dir: Path):
    """Steps 1 to 3 plain, to 5 by FSDP2, to 8 plain again: the weights of 8 steps at once, moments of Adam included."""
    data = judged(tmp_path / "data")
    for name, limits in (("whole", (8,)), ("parts", (3, 5, 8))):
        for steps in limits:
            file = config(
                root=tmp_path / name, data=data, **frozen_head(tiny_model_dir), data__batch_size=3, trainer__max_steps=steps,
                trainer__max_epochs=None, trainer__callbacks=[every(1)],
            )  # fmt: skip
            words = ["fit", "--config", file, "--ckpt_path", "last"]
            if steps == 5:
                done = stepverify(*words, *FSDP2, "1", "--trainer.devices", "1")
                assert done.returncode == 0, done.stderr[-2000:]
                assert (tmp_path / name / "checkpoints" / "step=5.ckpt").is_dir()
            else:
                main(words)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert one["score.weight"].abs().max() > 1e-3
    assert max((one[k] - other[k]).abs().max().item() for k in one) < 1e-6


class Strike(lightning.Callback):
    """Ends one rank in the third step, by SIGKILL or an exception; the others wait, as for NCCL, which hears of nothing."""

    def __init__(self, rank: int, how: str, file: str) -> None:
        self.rank, self.how, self.file = rank, how, Path(file)

    def on_train_start(self, trainer, pl_module) -> None:
        self.file.with_name(f"{self.file.name}-{trainer.global_rank}").write_text(str(os.getpid()))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == 2:
            if trainer.global_rank != self.rank:
                time.sleep(1000)
            self.file.with_name("struck").touch()
            if self.how == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("struck")
