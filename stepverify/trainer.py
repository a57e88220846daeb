"""The LightningCLI behind :mod:`stepverify.cli`, with the folders of a run in their place."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import lightning
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from stepverify.callbacks import CalibrationFigure, HuggingFaceExport, SolutionText, Throughput
from stepverify.data.datamodule import SolutionData
from stepverify.modules import VerifierModule

# Said by Lightning on every start; each is answered by this program's own design.
_NOISE = (
    ".*does not have many workers.*",  # collation takes microseconds: records are encoded beforehand
    ".*LeafSpec.*",
    ".*Trying to infer the `batch_size`.*",
    ".*Checkpoint directory .* exists and is not empty.*",  # a resumed or repeated run
    ".*this may indicate.*in eval mode.*",
)


class _RunFolder(LightningCLI):
    """Puts logs, checkpoints and export of a run below ``trainer.default_root_dir``.

    What the YAML names itself (a logger, a ModelCheckpoint, an export) stands; only what is missing is added.
    """

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """Fill in logger and callbacks."""
        config = self._get(self.config_init, "trainer", default={})
        root = Path(config.get("default_root_dir") or "runs/default")
        if config.get("logger") in (None, True):
            kwargs.setdefault("logger", TensorBoardLogger(root, name="logs", version=""))
        present = config.get("callbacks") or []
        present = present if isinstance(present, list) else [present]
        fitting = self.subcommand == "fit" and not config.get("fast_dev_run")
        added: list[lightning.Callback] = []
        if fitting and config.get("enable_checkpointing") is not False:
            added.append(ModelCheckpoint(root / "checkpoints", save_last=True))
        if fitting:
            added += [
                LearningRateMonitor("step"),
                Throughput(),
                CalibrationFigure(),
                SolutionText(),
                HuggingFaceExport(str(root / "export")),
            ]
        if config.get("logger") is False:
            added = [c for c in added if not isinstance(c, LearningRateMonitor)]
        kinds = tuple(type(c) for c in present)
        kwargs["callbacks"] = [*present, *(c for c in added if type(c) not in kinds)]
        return super().instantiate_trainer(**kwargs)


def run(args: list[str], run_command: bool = True) -> LightningCLI:
    """Parse the command line and, unless told otherwise, run it."""
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    # LightningCLI warns when arguments are passed while sys.argv has some: here they are the same ones.
    with mock.patch.object(sys, "argv", sys.argv[:1]):
        return _RunFolder(
            VerifierModule,
            SolutionData,
            subclass_mode_model=True,
            args=args if run_command else args[1:],
            run=run_command,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"gradient_clip_val": 1.0, "log_every_n_steps": 10, "num_sanity_val_steps": 0},
        )
