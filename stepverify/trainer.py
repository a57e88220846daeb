"""The LightningCLI behind :mod:`stepverify.cli`, with the folders of a run in their place."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import yaml
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from stepverify.callbacks import (
    CalibrationFigure,
    Checkpoints,
    ErrorCurve,
    HuggingFaceExport,
    ProgressLines,
    SolutionText,
    Throughput,
    files,
)
from stepverify.data.datamodule import SolutionData
from stepverify.modules import VerifierModule
from stepverify.records import InputError

# Said by Lightning and its parts on every start; each is answered by this program's own design.
_NOISE = (
    ".*does not have many workers.*",  # collation takes milliseconds: records are encoded beforehand
    ".*is smaller than the logging interval.*",
    ".*'set_vital' is deprecated.*",
    ".*LeafSpec.*",
    ".*LightningCLI's args parameter.*",  # a caller in Python knows what it passes
    ".*No (positive|negative) samples in targets.*",
)
_DECIDES = ("seed_everything", "model", "data")  # what makes a checkpoint another run's


class _RunFolder(LightningCLI):
    """Puts logs, checkpoints and export of a run below ``trainer.default_root_dir``.

    What the YAML names itself (a logger, Checkpoints, an export) stands; only what is missing is added.
    """

    def before_instantiate_classes(self) -> None:
        """Refuse to go on with a checkpoint that was made under another configuration."""
        config = self.config.get(str(self.subcommand), self.config)
        if self.subcommand != "fit" or config.get("ckpt_path") != "last":
            return
        root = Path(config.trainer.default_root_dir)
        saved = root / "logs" / "config.yaml"
        if not saved.is_file() or not files.find(root):
            return
        wanted = yaml.safe_load(self._parser("fit").dump(config, skip_none=False, format="yaml"))
        before, now = dict(_leaves(yaml.safe_load(saved.read_text()))), dict(_leaves(wanted))
        for key in sorted(before.keys() | now.keys()):
            if key.split(".")[0] in _DECIDES and before.get(key) != now.get(key):
                raise InputError(
                    f"{root}: its checkpoint was made with {key} = {before.get(key)!r}, now it is {now.get(key)!r}; "
                    "choose another trainer.default_root_dir, or remove this one"
                )

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """Fill in logger and callbacks."""
        config = self._get(self.config_init, "trainer", default={})
        root = Path(config.get("default_root_dir"))
        logged = config.get("logger") is not False
        if config.get("logger") in (None, True):
            kwargs.setdefault("logger", TensorBoardLogger(root, name="logs", version=""))
        present = config.get("callbacks") or []
        present = present if isinstance(present, list) else [present]
        added: list[lightning.Callback] = []
        if self.subcommand == "fit" and not config.get("fast_dev_run"):
            if config.get("enable_checkpointing") is not False:
                added.append(Checkpoints())
            if logged:
                added += [LearningRateMonitor("step"), Throughput(), CalibrationFigure(), ErrorCurve(), SolutionText()]
            added.append(HuggingFaceExport(str(root / "export")))
            shown = config.get("enable_progress_bar") is not False and not any(
                isinstance(c, ProgressBar) for c in present
            )
            if shown and not sys.stdout.isatty():
                added.append(ProgressLines())
        kinds = {type(c) for c in present}
        kwargs["callbacks"] = [*present, *(c for c in added if type(c) not in kinds)]
        return super().instantiate_trainer(**kwargs)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Find the last checkpoint that is whole, and have checkpoints read as data, never as pickled code."""
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        root, path = str(self.trainer.default_root_dir), kwargs.get("ckpt_path")
        if path == "last":
            kwargs["ckpt_path"] = files.last(root)
            if kwargs["ckpt_path"] is None and subcommand != "fit":
                raise InputError(f"{root}: there is no checkpoint to {subcommand}")
        elif path and Path(path).exists() and (reason := files.defect(Path(path))):
            raise InputError(f"{path}: the checkpoint is torn ({reason})")
        kwargs["weights_only"] = kwargs.get("weights_only") is not False
        # torch's sharded checkpoints do not take the argument, and Lightning does not hand it on to them.
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = str(int(kwargs["weights_only"]))
        return kwargs


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _be_quiet() -> None:
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).addFilter(lambda record: "litlogger" not in record.getMessage())
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def run(args: Sequence[str] | None = None) -> LightningCLI:
    """Parse the command line, or ``args`` in its place, and run it.

    With None the process's own line is used: Lightning starts further processes of DDP and FSDP2 with it.
    """
    _be_quiet()
    try:
        return _RunFolder(
            VerifierModule,
            SolutionData,
            subclass_mode_model=True,
            args=None if args is None else list(args),
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={
                "default_root_dir": "runs/default", "gradient_clip_val": 1.0, "log_every_n_steps": 10,
                "num_sanity_val_steps": 0,
            },
        )  # fmt: skip
    except SIGTERMException as stopped:
        # Lightning's code is 0, by which a script would go on to its next stage.
        stopped.code = 143 if stopped.code is None else stopped.code
        raise
