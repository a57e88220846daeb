"""What runs are called in hosted loggers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from stepverify.monitoring.run_names import name_runs, run_name


@pytest.mark.parametrize(
    ("root", "name"),
    [
        ("runs/quickstart/prm", "quickstart/prm"),
        ("/scratch/me/runs/gsm8k/seed_1/orm", "gsm8k/seed_1/orm"),
        ("/scratch/me/first", "me/first"),
        ("/a/runs/old/runs/new", "new"),
        ("/scratch/runs", "scratch/runs"),
    ],
)
def test_a_run_is_called_after_its_folder(root, name):
    """By what comes after the last ``runs``, if anything does."""
    assert run_name(root) == name


def entry(kind: str, **settings: Any) -> Any:
    return SimpleNamespace(class_path=f"lightning.pytorch.loggers.{kind}", init_args=SimpleNamespace(**settings))


def wandb(**given: Any) -> Any:
    return entry("WandbLogger", **{"name": None, "save_dir": ".", "project": None, "id": None, "version": None} | given)


def named(root: Path, logger: Any, resumes: bool = False) -> Any:
    name_runs(SimpleNamespace(default_root_dir=str(root), logger=logger), resumes)
    return logger


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return tmp_path / "runs" / "gsm8k" / "orm"


def test_what_is_not_given_is_filled_and_what_is_given_stays(root: Path, monkeypatch: pytest.MonkeyPatch):
    found = named(root, wandb()).init_args
    assert (found.name, found.project, found.save_dir, found.id) == ("gsm8k/orm", "stepverify", f"{root}/logs", None)
    found = named(root, wandb(name="mine", project="p", save_dir="/there")).init_args
    assert (found.name, found.project, found.save_dir) == ("mine", "p", "/there")
    monkeypatch.setenv("WANDB_PROJECT", "of the environment")
    assert named(root, wandb()).init_args.project == "of the environment"


def test_each_logger_of_a_list(root: Path):
    loggers = [
        entry("MLFlowLogger", run_name=None, experiment_name="lightning_logs"), entry("CometLogger", name=None),
        entry("CSVLogger", save_dir="x", name="lightning_logs"),
    ]  # fmt: skip
    mlflow, comet, numbers = (logger.init_args for logger in named(root, loggers))
    assert (mlflow.run_name, mlflow.experiment_name, comet.name) == ("gsm8k/orm", "stepverify", "gsm8k/orm")
    assert vars(numbers) == {"save_dir": "x", "name": "lightning_logs"}


@pytest.mark.parametrize("logger", [None, True, False])
def test_without_a_configured_logger_nothing_is_named(root: Path, logger):
    assert named(root, logger) is logger


def test_a_resumed_fit_goes_on_with_its_newest_run(root: Path):
    import os

    for age, folder in enumerate(("run-20261130_161200-newest", "offline-run-20261129_101200-older")):
        (root / "logs" / "wandb" / folder).mkdir(parents=True)
        os.utime(root / "logs" / "wandb" / folder, (1e9 - age, 1e9 - age))
    assert named(root, wandb(), resumes=True).init_args.id == "newest"
    assert named(root, wandb(), resumes=False).init_args.id is None, "started over"
    assert named(root, wandb(id="mine"), resumes=True).init_args.id == "mine"
    assert named(root.parent / "other", wandb(), resumes=True).init_args.id is None
