"""Progress of a fit where no terminal shows a bar."""

import re
import sys

import pytest

pytest.importorskip("torch")

from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

from stepverify.monitoring import ProgressLines
from stepverify.trainer import VerifierCLI, run
from tests.helpers.runs import config

LINE = re.compile(
    r"fit: epoch (\d) of 2, step (\d) of 8, 0:00:\d\d passed, 0:00:\d\d left, train/loss \d\.\d+(, [\d,]+ tokens/s)?"
)


def test_a_line_for_every_step_and_validation(tmp_path, capsys):
    """64 solutions in batches of 16, two epochs: eight steps; validated after the fourth and the last."""
    lines = [{"class_path": "ProgressLines", "init_args": {"seconds": 0.0}}]
    file = config("GeneratorModule", tmp_path / "run", trainer__callbacks=lines, trainer__enable_progress_bar=True)
    run(["fit", "--config", file])
    printed = capsys.readouterr().out.splitlines()
    found = [m.groups() for line in printed if (m := LINE.fullmatch(line))]
    assert [line[:2] for line in found] == [(str(1 + (step > 4)), str(step)) for step in range(1, 9)]
    assert all(line[2] for line in found[1:]), "speed is known from the step before"
    validated = [line for line in printed if line.startswith("validate: step")]
    assert [re.fullmatch(r"validate: step (\d), val/loss \d\.\d+", line)[1] for line in validated] == ["4", "8"]


@pytest.mark.parametrize(
    ("terminal", "changes", "expected"),
    [
        (False, {}, ProgressLines),
        (True, {}, RichProgressBar),
        (False, {"trainer__callbacks": [{"class_path": "TQDMProgressBar"}]}, TQDMProgressBar),
        (False, {"trainer__enable_progress_bar": False}, type(None)),
    ],
)
def test_lines_take_the_place_of_a_bar_that_nobody_sees(terminal, changes, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setattr(VerifierCLI, "run_trainer", lambda self, command: None)
    file = config("GeneratorModule", tmp_path / "run", **{"trainer__enable_progress_bar": True} | changes)
    trainer = run(["fit", "--config", file]).trainer
    assert type(trainer.progress_bar_callback) is expected
