"""Fits with losses that compare steps or solutions, or count rollouts, from the command line to the export."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from stepverify.cli import main  # noqa: E402
from stepverify.jsonl import write_records  # noqa: E402
from stepverify.readers import Synthetic  # noqa: E402
from stepverify.records import Solution  # noqa: E402
from tests.helpers.labels import counted  # noqa: E402
from tests.helpers.runs import config, scalars  # noqa: E402


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two solutions of each of eight problems, one of them incorrect in the final step; of the first problem none is."""
    records = []
    for i, problem in enumerate(Synthetic("train", 8, num_steps=3).problems()):
        for sample in range(2):
            good = sample == 0 or i == 0
            steps = problem.steps if good else [*problem.steps[:-1], "#### 99"]
            labels = [counted(1, 2)] * (len(steps) - 1) + [counted(2 * good, 2)]
            records.append(Solution.of(problem, sample, steps, correct=good, step_labels=labels))
    folder = tmp_path_factory.mktemp("compared")
    write_records(folder / "part-00000.jsonl", records)
    return folder


@pytest.mark.parametrize(
    ("kind", "model", "data"),
    [
        pytest.param(
            "OutcomeVerifier",
            {"loss": {"class_path": "OutcomeRanking"}, "per_token": False},
            {"pack_tokens": 256},
            id="outcome",
        ),
        pytest.param(
            "ProcessRewardModel",
            {"loss": {"class_path": "SolutionRanking"}},
            {"pack_tokens": 256},
            id="solution",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "ProcessRewardModel", {"loss": {"class_path": "StepRanking"}}, {}, id="step", marks=pytest.mark.slow
        ),
        pytest.param(
            "ProcessRewardModel",
            {"loss": {"class_path": "StepBinomial"}, "targets": {"monte_carlo": "soft"}},
            {"prefix_weighting": "once"},
            id="binomial",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_fit_with_a_loss_that_compares(kind, model, data, tmp_path: Path, labelled: Path, caplog):
    """After six epochs the loss is below that of the first batch, and what gives no pair is said."""
    changes = {f"model__init_args__{key}": value for key, value in model.items()}
    changes |= {f"data__{key}": value for key, value in data.items()} | {"trainer__max_epochs": 6}
    changes["trainer__check_val_every_n_epoch"] = 6
    with caplog.at_level("INFO"):
        main(["fit", "--config", config(kind, tmp_path / "run", labelled, **changes)])
    seen = scalars(tmp_path / "run")
    ((_, final),), losses = seen["val/loss"], [value for _, value in seen["train/loss"]]
    assert final < losses[0] - 0.01
    assert torch.isfinite(torch.tensor(losses)).all()
    assert (tmp_path / "run" / "export" / "model.safetensors").is_file()
    pairs = "7 of 8 problems have correct and incorrect solutions to compare; 1 with correct ones alone teach nothing"
    assert (pairs in caplog.text) == ("Outcome" in kind or "SolutionRanking" in str(model))


def test_settings_under_which_nothing_is_compared_are_refused(tmp_path: Path, labelled: Path, capsys):
    """Before data is read or a model is loaded, by one line that names the key."""
    for number, (changes, message) in enumerate((
        ({}, "loss: OutcomeRanking compares the final tokens of solutions and does not support per_token: true"),
        ({"per_token": False, "label_smoothing": 0.1}, "does not support label_smoothing: 0.1; set label_smoothing to 0"),
        ({"per_token": False}, "data.pack_tokens: not given, but OutcomeRanking compares the solutions of a problem"),
    )):  # fmt: skip
        given = {f"model__init_args__{key}": value for key, value in changes.items()}
        given["model__init_args__loss"] = {"class_path": "OutcomeRanking"}
        with pytest.raises(SystemExit) as stopped:
            main(["fit", "--config", config("OutcomeVerifier", tmp_path / str(number), labelled, **given)])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
