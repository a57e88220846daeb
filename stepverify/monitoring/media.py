"""Show figures and solutions in every logger, each in its own way; none leaves them out silently."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import lightning
from lightning.pytorch.loggers import CometLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from stepverify import atomic
from stepverify.callbacks.files import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Sequence[str | float | None]
_SHOWING = (TensorBoardLogger, WandbLogger, CometLogger, MLFlowLogger)


def shows(trainer: lightning.Trainer) -> bool:
    """Check whether this process has a logger that figures and tables go to; ``fast_dev_run`` writes nothing."""
    return trainer.is_global_zero and bool(trainer.loggers) and not trainer.fast_dev_run  # type: ignore[attr-defined]


def show_figure(trainer: lightning.Trainer, name: str, figure: Figure) -> None:
    """Log a figure at the current step, in every logger.

    TensorBoard, W&B and Comet show it as an image, MLflow as an artifact ``NAME/step=N.png``. For any other logger it
    becomes that file in the logger's folder.

    Args:
        trainer: on the process that logs.
        name: with ``/`` between its parts.
        figure: of Matplotlib.
    """
    step = trainer.global_step
    file = f"{name}/step={step}.png"
    for logger in trainer.loggers:
        match logger:
            case TensorBoardLogger():
                logger.experiment.add_figure(name, figure, step)
            case WandbLogger():
                logger.log_image(name, [figure], step)
            case CometLogger():
                logger.experiment.log_figure(figure_name=name, figure=figure, step=step)
            case MLFlowLogger():
                logger.experiment.log_figure(logger.run_id, figure, file)
            case _:
                drawn = io.BytesIO()
                figure.savefig(drawn, format="png")
                atomic.write(_folder(trainer, logger) / file, drawn.getvalue())


def show_table(
    trainer: lightning.Trainer, name: str, columns: Sequence[str], rows: Sequence[Row], texts: Sequence[str]
) -> None:
    """Log a table at the current step, in every logger.

    W&B and Comet show the table, and MLflow as an artifact ``NAME/step=N.csv``. TensorBoard, which has no tables, shows
    the texts instead. For any other logger the table becomes that file in the logger's folder.

    Args:
        trainer: on the process that logs.
        name: with ``/`` between its parts.
        columns: names of the C columns.
        rows: C values each.
        texts: the same content to be read, logged as ``NAME/0``, ``NAME/1``, …
    """
    step = trainer.global_step
    file = f"{name}/step={step}.csv"
    for logger in trainer.loggers:
        match logger:
            case TensorBoardLogger():
                for i, text in enumerate(texts):
                    logger.experiment.add_text(f"{name}/{i}", _verbatim(text), step)
            case WandbLogger():
                logger.log_table(name, columns=list(columns), data=[list(row) for row in rows], step=step)
            case CometLogger():
                logger.experiment.log_table(file, tabular_data=list(rows), headers=list(columns))
            case MLFlowLogger():
                logger.experiment.log_text(logger.run_id, _as_csv(columns, rows), file)
            case _:
                atomic.write(_folder(trainer, logger) / file, _as_csv(columns, rows))


def _verbatim(text: str) -> str:
    """Indent text so that TensorBoard's Markdown shows it verbatim."""
    return "\n".join("    " + line for line in text.splitlines())


def _as_csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([columns, *rows])
    return written.getvalue()


def say_files(trainer: lightning.Trainer) -> None:
    """Say which loggers show neither figures nor tables, and where their files will be."""
    for logger in trainer.loggers:
        if not isinstance(logger, _SHOWING):
            where = _folder(trainer, logger)
            say(f"{type(logger).__name__} shows neither figures nor tables: they become files in {where}")


def _folder(trainer: lightning.Trainer, logger: Logger) -> Path:
    return Path(getattr(logger, "log_dir", None) or logger.save_dir or trainer.default_root_dir)
