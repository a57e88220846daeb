"""Run the LightningCLI of :mod:`stepverify.cli`, with one folder per run."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LearningRateMonitor, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from stepverify.callbacks import Checkpoints, HuggingFaceExport, StopAtNonFinite, files
from stepverify.callbacks.memory import ChooseCheckpointing, NoteOutOfMemory, out_of_memory
from stepverify.callbacks.ranks import EndFailed
from stepverify.callbacks.run_folder import Finished, RunFolder, claim, earlier_precision, inputs_of
from stepverify.config_files import ConfigFiles, hints_of
from stepverify.data.datamodule import SolutionData
from stepverify.follow import follow_main, forget_main
from stepverify.launch import check_launcher, check_processes
from stepverify.lightning_compat import OpenCLI
from stepverify.lock import locked
from stepverify.memory import is_out_of_memory
from stepverify.modules import StepModule
from stepverify.monitoring import (
    CalibrationFigure,
    Hyperparameters,
    LoggingInterval,
    Outline,
    PrecisionRecallCurve,
    ProgressLines,
    SolutionText,
    Throughput,
)
from stepverify.monitoring.quiet import be_quiet
from stepverify.monitoring.run_names import name_runs
from stepverify.records import InputError
from stepverify.trainer_settings import check_settings, choose_accelerator, settle_mesh, settle_precision
from stepverify.variables import Variables, split_arguments


class _Parser(ConfigFiles, LightningArgumentParser):
    hints = hints_of(lightning.Trainer.fit) | {
        "trainer": lightning.Trainer, "model": StepModule, "data": SolutionData,
    }  # fmt: skip
    links = (("seed_everything", "data.seed"),)


class VerifierCLI(OpenCLI):
    """Put logs, checkpoints and export of a run below ``trainer.default_root_dir``.

    Settings of the YAML (a logger, Checkpoints, an export) are kept; only missing ones are added.

    Args:
        args: of :class:`~lightning.pytorch.cli.LightningCLI`.
        variables: of the command line.
        kwargs: of that class.
    """

    def __init__(self, *args: Any, variables: Variables, **kwargs: Any) -> None:
        self.variables = variables
        self.command = next(iter(kwargs.get("args") or ()), None)
        with ExitStack() as self.held:  # what is held while the command runs
            super().__init__(*args, **kwargs)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Build a parser that knows the variables.

        All are of one class: by that jsonargparse keeps what it has found out of the classes that a file names.
        """
        parser = super().init_parser(**kwargs)
        assert isinstance(parser, _Parser)
        parser.variables = self.variables
        return parser

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the command that was given, as each takes half a second to describe; all where it is none of them."""
        known = super().subcommands()
        return {self.command: known[self.command]} if self.command in known else known

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Add ``--overwrite`` to the arguments of fit."""
        super().setup_parser(*args, **kwargs)
        if "fit" not in self.subcommands():
            return
        self.parser_of("fit").add_argument(
            "--overwrite", type=bool, default=False,
            help="Start over: remove logs, checkpoints and export of the run in trainer.default_root_dir.",
        )  # fmt: skip

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Let one seed decide weights, dropout and the order of the batches."""
        for source, target in _Parser.links:
            parser.link_arguments(source, target, compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments of a command by its own parser alone; the main one would do most of it again."""
        if self.command not in self.subcommands() or any(word.startswith("--print_config") for word in args):
            super().parse_arguments(parser, args)
            return
        parsed = self.parser_of(self.command).parse_args(args[1:])
        self.config = Namespace({"subcommand": self.command, self.command: parsed})

    def before_instantiate_classes(self) -> None:
        """Refuse unsupported settings and used folders, before data or model are loaded."""
        self.variables.check()
        config = self.config[self.subcommand]
        config.data.seed = int(config.seed_everything)  # where that was `true`, Lightning has chosen a number since
        choose_accelerator(config.trainer)
        check_settings(config.trainer)
        root = Path(config.trainer.default_root_dir)
        settle_precision(
            config.trainer, config.model.init_args.backbone.dtype, earlier_precision(root, config.get("ckpt_path"))
        )
        if self.subcommand == "fit" and not config.trainer.fast_dev_run:  # which writes nothing
            rank_zero_only(self.held.enter_context)(locked(root))
        overwrite = config.pop("overwrite", None)  # not saved, as it applies to this run only
        text = self.parser_of(str(self.subcommand)).dump(config, skip_none=False, skip_validation=True, format="yaml")
        self.save_config_kwargs |= {"text": text, "save_to_log_dir": False}
        if self.subcommand != "fit":
            return
        plain = yaml.safe_load(text)
        inputs = inputs_of(plain)
        earlier = claim(
            root, _export_folder(plain) or root / "export", plain, inputs, ckpt_path=config.ckpt_path,
            overwrite=overwrite, fast_dev_run=bool(config.trainer.fast_dev_run),
        )  # fmt: skip
        self.save_config_kwargs |= {"plain": plain, "inputs": inputs, "earlier": earlier}
        name_runs(config.trainer, resumes=bool(config.ckpt_path and files.find(root)))

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """Add the default logger and callbacks."""
        config = self.trainer_settings()
        root = Path(config.get("default_root_dir"))
        logged = config.get("logger") is not False
        if config.get("logger") in (None, True):
            kwargs.setdefault("logger", TensorBoardLogger(root, name="logs", version=""))
        present = config.get("callbacks") or []
        present = present if isinstance(present, list) else [present]
        added: list[lightning.Callback] = [EndFailed(), NoteOutOfMemory()]
        if self.subcommand == "fit":
            added += [StopAtNonFinite(), ChooseCheckpointing()]
        if self.subcommand == "fit" and not config.get("fast_dev_run"):
            if config.get("enable_checkpointing") is not False:
                added.append(Checkpoints())
            if logged:
                added += [LearningRateMonitor("step"), Throughput()]
                added += [CalibrationFigure(), PrecisionRecallCurve(), SolutionText()]
                added.append(Hyperparameters(self.save_config_kwargs["plain"]))
                if config.get("log_every_n_steps") is None:
                    added.append(LoggingInterval())
            added.append(HuggingFaceExport(str(root / "export")))
            paths = [str(path) for path in self.config[self.subcommand].get("config") or ()]
            added.append(Outline(self.save_config_kwargs["plain"], paths, self.variables.given))
            shown = config.get("enable_progress_bar") is not False and not any(
                isinstance(c, ProgressBar) for c in present
            )
            if shown and not sys.stdout.isatty():
                added.append(ProgressLines())
        check_launcher()
        kinds = {type(c) for c in present}
        kwargs["callbacks"] = [*present, *(c for c in added if type(c) not in kinds)]
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError) as error:  # no such accelerator, too many devices
            raise InputError(f"trainer: {str(error).splitlines()[0]}") from error
        check_processes(trainer)
        settle_mesh(trainer)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = files.AnyCheckpoint()
        return trainer

    def run_trainer(self, subcommand: str) -> None:
        """Run the command; end with one line if memory runs out."""
        try:
            super().run_trainer(subcommand)
        except pickle.UnpicklingError as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{self.trainer.ckpt_path}: holds more than data, which is not loaded: {reason}"
            ) from error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(out_of_memory(self.trainer, error)) from error

    def subcommand_arguments(self, subcommand: str) -> dict[str, Any]:
        """Find the last undamaged checkpoint, and load checkpoints without running pickled code."""
        kwargs = super().subcommand_arguments(subcommand)
        root, path = str(self.trainer.default_root_dir), kwargs.get("ckpt_path")
        if path == "last":
            kwargs["ckpt_path"] = files.last(root)
            if kwargs["ckpt_path"] is None and subcommand != "fit":
                raise InputError(f"{root}: there is no checkpoint to {subcommand}")
        elif path and Path(path).exists() and (reason := files.defect(Path(path))):
            raise InputError(f"{path}: the checkpoint is torn ({reason})")
        path = kwargs.get("ckpt_path")
        if subcommand == "fit" and path and Path(path).exists() and files.is_weights_only(Path(path)):
            raise InputError(
                f"{path}: holds weights without optimizer state (Checkpoints.final), so that training "
                "cannot resume from it: start over with --overwrite true, or train the export further in another "
                "trainer.default_root_dir (model.init_args.backbone.path)"
            )
        kwargs["weights_only"] = kwargs.get("weights_only") is not False
        # For torch's sharded checkpoints, which do not get the argument from Lightning.
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = str(int(kwargs["weights_only"]))
        return kwargs


def _export_folder(config: Mapping[str, Any]) -> Path | None:
    """Return the folder that a HuggingFaceExport of the configuration names."""
    callbacks = config["trainer"]["callbacks"] or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if callback["class_path"].rpartition(".")[2] == HuggingFaceExport.__name__:
            folder = (callback.get("init_args") or {}).get("folder")
            return None if folder is None else Path(folder)
    return None


def _leave_group() -> None:
    """Close the process group of several processes.

    A process that ends with it open may abort in a thread of gloo.
    """
    group = torch.distributed
    if group.is_available() and group.is_initialized() and group.get_world_size() > 1:
        group.destroy_process_group()


def run(args: Sequence[str] | None = None) -> OpenCLI | None:
    """Parse the command line or ``args``, and run it.

    Returns None if the run had already finished. With ``args`` None the command line of the process is used: Lightning
    starts further processes of DDP and FSDP2 with it.
    """
    be_quiet()
    follow_main()
    given, rest = split_arguments(sys.argv[1:] if args is None else args)
    try:
        cli = VerifierCLI(
            StepModule,
            SolutionData,
            variables=Variables(given),
            subclass_mode_model=True,
            args=rest,
            parser_class=_Parser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            seed_everything_default=0,
            save_config_callback=RunFolder,
            trainer_defaults={
                "default_root_dir": "runs/default", "gradient_clip_val": 1.0, "num_sanity_val_steps": 0,
                "enable_model_summary": False,
            },
        )  # fmt: skip
        _leave_group()
        return cli
    except Finished as finished:
        print(finished)
        return None
    except SIGTERMException as stopped:
        # Lightning's exit code is 0, with which a script would continue with its next stage.
        stopped.code = 143 if stopped.code is None else stopped.code
        raise
    finally:
        forget_main()
