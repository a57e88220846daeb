"""Figures and tables in every logger; with W&B and MLflow where they are installed."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

pytest.importorskip("torch")

from lightning.pytorch.loggers import CometLogger, CSVLogger, TensorBoardLogger
from matplotlib.figure import Figure

from stepverify.monitoring.media import say_files, show_figure, show_table, shows
from tests.helpers.runs import scalars

COLUMNS = ("solution", "step", "label", "value", "correct")
ROWS = [("a#0", 1, 0.75, 0.5, "incorrect"), ("a#0", 2, None, None, None)]
PNG = b"\x89PNG"


def trainer(root: Path, *loggers: Any) -> Any:
    """What the functions need of a trainer, at step 7."""
    return SimpleNamespace(
        loggers=list(loggers), global_step=7, is_global_zero=True, default_root_dir=str(root), fast_dev_run=0
    )


def show(seen: Any) -> None:
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([0, 1], [0, 1])
    show_figure(seen, "curve/0", figure)
    show_table(seen, "solution", COLUMNS, ROWS, ["first\ntext", "second"])


def test_tensorboard_shows_image_and_texts(tmp_path: Path):
    logger = TensorBoardLogger(tmp_path, name="logs", version="")
    show(trainer(tmp_path, logger))
    logger.finalize("success")
    assert set(scalars(tmp_path)) == {"curve/0", "solution/0/text_summary", "solution/1/text_summary"}


def test_a_logger_of_numbers_gets_files_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Beside TensorBoard, which needs none; None is an empty cell."""
    board, logger = TensorBoardLogger(tmp_path, name="logs", version=""), CSVLogger(tmp_path, name="csv", version="")
    seen = trainer(tmp_path, board, logger)
    say_files(seen)
    said = f"stepverify: CSVLogger shows neither figures nor tables: they become files in {tmp_path}/csv\n"
    assert capsys.readouterr().err == said
    show(seen)
    assert (tmp_path / "csv" / "curve" / "0" / "step=7.png").read_bytes()[:4] == PNG
    with (tmp_path / "csv" / "solution" / "step=7.csv").open() as file:
        assert list(csv.reader(file)) == [
            list(COLUMNS), ["a#0", "1", "0.75", "0.5", "incorrect"], ["a#0", "2", "", "", ""],
        ]  # fmt: skip


def test_comet_gets_both():
    experiment, logger = MagicMock(), CometLogger.__new__(CometLogger)
    logger._experiment = experiment
    show(trainer(Path(), logger))
    assert experiment.log_figure.call_args.kwargs["figure_name"] == "curve/0"
    assert experiment.log_figure.call_args.kwargs["step"] == 7
    experiment.log_table.assert_called_once_with("solution/step=7.csv", tabular_data=ROWS, headers=list(COLUMNS))


def test_other_processes_trials_and_fits_without_logger_show_nothing(tmp_path: Path):
    assert shows(trainer(tmp_path, CSVLogger(tmp_path)))
    assert not shows(trainer(tmp_path))
    for change in ({"is_global_zero": False}, {"fast_dev_run": 1}):
        other = trainer(tmp_path, CSVLogger(tmp_path))
        vars(other).update(change)
        assert not shows(other)


@pytest.mark.slow
def test_wandb_gets_an_image_and_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Offline: media lie below the run's folder until `wandb sync` sends them."""
    wandb = pytest.importorskip("wandb")
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(name="quickstart/prm", save_dir=str(tmp_path), offline=True, project="stepverify")
    show(trainer(tmp_path, logger))
    assert logger.experiment.name == "quickstart/prm"
    wandb.finish()
    [image] = tmp_path.glob("wandb/offline-run-*/files/media/images/curve/*.png")
    assert image.read_bytes()[:4] == PNG
    [table] = tmp_path.glob("wandb/offline-run-*/files/media/table/*.table.json")
    written = json.loads(table.read_text())
    assert (written["columns"], written["data"]) == (list(COLUMNS), [list(row) for row in ROWS])


@pytest.mark.slow
def test_mlflow_gets_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("mlflow")
    from lightning.pytorch.loggers import MLFlowLogger

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger("stepverify", run_name="quickstart/prm", tracking_uri=f"file:{tmp_path}/runs")
    show(trainer(tmp_path, logger))
    assert logger.experiment.get_run(logger.run_id).info.run_name == "quickstart/prm"
    [image] = tmp_path.glob("runs/*/*/artifacts/curve/0/step=7.png")
    assert image.read_bytes()[:4] == PNG
    [table] = tmp_path.glob("runs/*/*/artifacts/solution/step=7.csv")
    assert table.read_text().splitlines()[1] == "a#0,1,0.75,0.5,incorrect"
