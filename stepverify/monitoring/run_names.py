"""Name the runs of hosted loggers after the folder that a fit writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_PROJECT = "stepverify"


def run_name(root: str | Path) -> str:
    """Return what a run is called: its folder below ``runs``, or the last two parts of its path."""
    parts = Path(root).absolute().parts
    after = parts[len(parts) - parts[::-1].index("runs") :] if "runs" in parts else ()
    return "/".join(after or parts[-2:])


def name_runs(trainer: Any, resumes: bool) -> None:
    """Fill what loggers leave to chance: the run's name, project and folder.

    W&B would call a run ``fancy-sun-3`` in the project ``lightning_logs``. A resumed fit goes on with its W&B run.

    Args:
        trainer: the configuration's entry, changed in place; what is given there stays.
        resumes: the fit goes on from a checkpoint.
    """
    root, name = Path(trainer.default_root_dir), run_name(trainer.default_root_dir)
    for logger in trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]:
        settings, kind = getattr(logger, "init_args", None), str(getattr(logger, "class_path", "")).rpartition(".")[2]
        if settings is None:
            continue
        if kind == "WandbLogger":
            settings.save_dir = str(root / "logs") if settings.save_dir in (None, ".") else settings.save_dir
            settings.project = settings.project or os.environ.get("WANDB_PROJECT", _PROJECT)
            settings.name = settings.name or name
            if resumes and settings.id is None and settings.version is None:
                settings.id = _earlier_id(Path(settings.save_dir))
        elif kind == "MLFlowLogger":
            settings.run_name = settings.run_name or name
            if settings.experiment_name == "lightning_logs":
                settings.experiment_name = _PROJECT
        elif kind == "CometLogger":
            settings.name = settings.name or name


def _earlier_id(folder: Path) -> str | None:
    """Return the id of the newest W&B run below a folder: the end of its folder's name, ``run-20261130_161200-ID``."""
    runs = sorted(folder.glob("wandb/*run-*-*"), key=lambda path: path.stat().st_mtime)
    return runs[-1].name.rpartition("-")[2] if runs else None
