"""Write the scores of ``stepverify predict`` as records."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.utilities import rank_zero_warn

from stepverify import atomic
from stepverify.jsonl import MANIFEST, write_records
from stepverify.lock import LOCK, locked
from stepverify.manifest import read_manifest, write_manifest
from stepverify.modules import OutcomeVerifier, StepModule
from stepverify.records import InputError, Solution
from stepverify.training_problems import count_trained, describe_trained


class ScoreWriter(lightning.Callback):
    """Write predictions as a folder of solutions with ``scores[name]``.

    Args:
        folder: output folder; must be empty, or left by a killed predict.
        name: the verifier's name in the scores, for example ``orm`` or ``prm``.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.folder, self.name = Path(folder), name
        self._identity = {"stage": "predict", "config": {"verifier": name}, "inputs": {}}
        self._held: ExitStack | None = None
        self._scored: list[Solution] = []

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Refuse a folder that is in use, before a model is loaded, and lock it for this process."""
        if stage != "predict" or not trainer.is_global_zero:
            return
        atomic.refuse_others(self.folder, folder=True)
        with ExitStack() as stack:
            stack.enter_context(locked(self.folder))
            self._clear()
            self._held = stack.pop_all()

    def _clear(self) -> None:
        """Remove what a killed predict left.

        Raises:
            InputError: the folder holds anything else.
        """
        manifest = self.folder / MANIFEST
        left = [manifest, *self.folder.glob("part-*.jsonl")]
        known = read_manifest(manifest) if manifest.is_file() else {}
        killed = known.get("stage") == "predict" and not known["finished"]
        signs = {p for p in self.folder.iterdir() if p.name.startswith(LOCK) or p.match(".*.draft")}
        if not {*self.folder.iterdir()} <= signs | {*(left if killed else ())}:
            raise InputError(f"{self.folder}: not empty; choose another output folder, or remove this one")
        for path in (*left, *(p for p in signs if p.name != LOCK)):
            atomic.remove(path)

    def on_predict_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Mark the folder as unfinished, so that incomplete shards are not read."""
        self._scored = []
        if trainer.is_global_zero:
            write_manifest(self.folder, self._identity)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Remove the folder if nothing was written."""
        if self._held is not None:
            if not any(self.folder.glob("part-*.jsonl")):
                (self.folder / MANIFEST).unlink(missing_ok=True)
            self._release()

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Give the folder up."""
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def on_predict_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule,
        outputs: Sequence[tuple[Solution, list[float]]] | Any, batch: Any, batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Keep the scored records of this rank."""
        for record, values in outputs:
            record.scores = record.scores | {self.name: [round(v, 6) for v in values]}
            if values and isinstance(pl_module, OutcomeVerifier) and pl_module.predict_every_token:
                record.token_texts = record.token_texts | {self.name: pl_module.encoder.token_texts(record)}
            self._scored.append(record)

    def on_predict_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write this rank's shard, then mark the folder as finished."""
        self._scored.sort(key=lambda s: s.id)
        write_records(self.folder / f"part-{trainer.global_rank:05d}.jsonl", self._scored)
        trainer.strategy.barrier("scores")
        if trainer.is_global_zero:
            summary: dict[str, Any] = {"verifier": self.name, "ranks": trainer.world_size}
            examples = getattr(trainer.datamodule, "examples", {}).get("predict")  # type: ignore[attr-defined]
            if examples is not None and trainer.ckpt_path is None:  # a checkpoint does not list its training problems
                assert isinstance(pl_module, StepModule)
                trained = {self.name: count_trained(pl_module.backbone_source.folder, examples.digests)}
                summary["trained_on"] = trained
                for line in describe_trained(trained):
                    rank_zero_warn(line)
            write_manifest(self.folder, self._identity, summary)
