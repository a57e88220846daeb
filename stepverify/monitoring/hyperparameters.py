"""Log hyperparameters once, and the metrics of the exported weights beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import lightning
from lightning.pytorch.loggers import TensorBoardLogger

from stepverify.callbacks.best import final_metrics
from stepverify.manifest import flatten

_TRAINER = (
    "max_epochs", "max_steps", "max_time", "precision", "strategy", "devices", "num_nodes", "accumulate_grad_batches",
    "gradient_clip_val",
)  # fmt: skip


class Hyperparameters(lightning.Callback):
    """Log a fit's settings when it starts, and ``final/…`` when it ends.

    ``final/val/…`` are the metrics of the exported weights, which are those of the best checkpoint if one is chosen;
    ``final/train/loss`` is that of the last batch. TensorBoard shows them beside the settings in its HParams tab, where
    runs are compared. For it both are one event, so a fit that was ended early is not there; its ``hparams.yaml`` has
    the settings from the start.

    Args:
        config: configuration of the fit, as plain values.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.hyperparameters = hyperparameters(config)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the settings."""
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, TensorBoardLogger):
                logger.hparams.update(self.hyperparameters)
            else:
                logger.log_hyperparams(self.hyperparameters)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the final metrics."""
        loss = {k: float(v) for k, v in trainer.callback_metrics.items() if k == "train/loss"}
        metrics = {f"final/{k}": v for k, v in (loss | final_metrics(trainer)).items() if not math.isnan(v)}
        if trainer.interrupted or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(self.hyperparameters, metrics, trainer.global_step)
            else:
                logger.log_metrics(metrics, trainer.global_step)
            logger.save()


def hyperparameters(config: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return what decides a fit, flat and without what is not set.

    ``model.init_args.optimizer.class_path`` is called ``model.optimizer`` and has the class's name alone.

    Args:
        config: ``seed_everything``, ``model``, ``data`` and ``trainer`` of a configuration.
    """
    trainer = {key: config.get("trainer", {}).get(key) for key in _TRAINER}
    kept = {"seed_everything": config.get("seed_everything"), "model": config["model"], "data": config["data"]}
    found: dict[str, str | int | float | bool] = {}
    for key, value in flatten(kept | {"trainer": trainer}).items():
        if value is None:
            continue
        parts = [part for part in key.split(".") if part != "init_args"]
        if parts[-1] == "class_path":
            found[".".join(parts[:-1])] = str(value).rpartition(".")[2]
        else:
            found[".".join(parts)] = value if isinstance(value, str | int | float | bool) else json.dumps(value)
    return found
