"""``stepverify predict`` writes what it scored as records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning

from stepverify.jsonl import MANIFEST, write_records
from stepverify.modules import OutcomeVerifier
from stepverify.records import InputError, Solution


class ScoreWriter(lightning.Callback):
    """Collects predictions and writes them as a folder of solutions that carry ``scores[name]``.

    Args:
        folder: output folder; must not hold the output of another run.
        name: the verifier's name in the scores, ``orm`` or ``prm`` for example.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.folder, self.name = Path(folder), name
        self._scored: list[Solution] = []

    def on_predict_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Refuse a folder that is in use, before anything is computed."""
        if trainer.is_global_zero and self.folder.exists() and any(self.folder.iterdir()):
            raise InputError(f"{self.folder}: not empty; choose another output folder, or remove this one")
        self._scored = []

    def on_predict_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
        outputs: Sequence[tuple[Solution, list[float]]] | Any, batch: Any, batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Keep the scored records of this rank."""
        for record, values in outputs:
            record.scores = record.scores | {self.name: [round(v, 6) for v in values]}
            if values and isinstance(pl_module, OutcomeVerifier) and pl_module.predict_every_token:
                record.pieces = record.pieces | {self.name: pl_module.encoder.pieces(record)}
            self._scored.append(record)

    def on_predict_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write this rank's shard, then the manifest."""
        self._scored.sort(key=lambda s: s.id)
        write_records(self.folder / f"part-{trainer.global_rank:05d}.jsonl", self._scored)
        trainer.strategy.barrier("scores")
        if trainer.is_global_zero:
            manifest = {
                "stage": "predict",
                "finished": True,
                "summary": {"verifier": self.name, "ranks": trainer.world_size},
            }
            (self.folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
