"""Runs with a scripted metric, and the checkpoints that they keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch

from stepverify.cli import main
from tests.helpers.runs import config


class Scripted(lightning.Callback):
    """Logs what it is told, a value for each so many steps."""

    logged = ("val/scripted",)

    def __init__(self, values: list[float], every: int = 4) -> None:
        self.values, self.every = values, every

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        pl_module.log("val/scripted", self.values[trainer.global_step // self.every - 1])


def scripted(*values: float) -> dict[str, Any]:
    return {"class_path": "tests.helpers.best.Scripted", "init_args": {"values": list(values)}}


def best_of(monitor: str = "val/scripted", mode: str | None = "max", **more: Any) -> dict[str, Any]:
    arguments = {"monitor": monitor, "mode": mode, "keep": 1} | more
    return {"class_path": "stepverify.callbacks.Checkpoints", "init_args": arguments}


def fit(root: Path, epochs: int, *callbacks: dict[str, Any], **changes: Any) -> None:
    settings = {"trainer__max_epochs": epochs, "trainer__callbacks": [*callbacks], "trainer__logger": False} | changes
    file = config("GeneratorModule", root, **settings)
    main(["fit", "--config", file, "--ckpt_path", "last"])


def saved(root: Path, name: str) -> dict[str, Any]:
    """Tensors of a checkpoint, by their names in the export."""
    state = torch.load(root / "checkpoints" / name, weights_only=True)["state_dict"]
    return {k.removeprefix("model.backbone."): v for k, v in state.items()}


def names(root: Path) -> dict[str, str]:
    """Checkpoints of a run, and what a link leads to."""
    return {p.name: p.resolve().name for p in sorted((root / "checkpoints").iterdir())}
