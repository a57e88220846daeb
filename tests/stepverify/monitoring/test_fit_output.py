"""What a short fit prints from start to end, and what its loggers have then."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

pytest.importorskip("torch")

from stepverify.pipelines import FIT, OVERLAYS, read_pipeline
from stepverify.starting.next_commands import IN_PIPELINE, next_stage
from tests.helpers.processes import ROOT, stepverify
from tests.helpers.runs import config, scalars, write_labelled

LOGGERS = [
    {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "RUN", "name": "logs", "version": ""}},
    {"class_path": "CSVLogger", "init_args": {"save_dir": "RUN", "name": "numbers", "version": ""}},
]
NOISE = ("Total FLOPs", "Loading", "TPU", "Mode", "Tip", "Warning", "it/s")


@dataclass
class Fit:
    root: Path
    out: list[str]
    err: str


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """A reward model in 10 epochs of one step, validated after each fifth: as a user starts it, its output no terminal."""
    folder = tmp_path_factory.mktemp("output")
    root = folder / "runs" / "tiny" / "prm"
    root.parent.mkdir(parents=True)
    loggers = yaml.safe_load(yaml.safe_dump(LOGGERS).replace("RUN", str(root)))
    held_out = {"class_path": "Solutions", "init_args": {"path": str(write_labelled(folder / "labels")), "limit": 8}}
    changes = {
        "trainer__max_epochs": 10, "trainer__logger": loggers, "trainer__log_every_n_steps": None,
        "trainer__enable_progress_bar": True, "trainer__enable_model_summary": False, "data__validation": held_out,
        "trainer__check_val_every_n_epoch": 5, "data__batch_size": 32,
    }  # fmt: skip
    file = config("ProcessRewardModel", root, folder / "labels", **changes)
    done = stepverify("fit", "--config", file)
    assert done.returncode == 0, done.stderr
    return Fit(root, done.stdout.splitlines(), done.stderr)


def test_it_starts_without_noise(fitted: Fit):
    """One line says what is trained."""
    for text in NOISE:
        assert text not in fitted.err + "\n".join(fitted.out)
    assert "\nmodel: 55,872 parameters, all trained\n" in fitted.err
    assert "\nstepverify: warning: data.validation: 8 of 8 problems are in data.train too, " in fitted.err
    assert f"CSVLogger shows neither figures nor tables: they become files in {fitted.root}/numbers" in fitted.err


def test_it_ends_with_metrics_export_and_next_commands(fitted: Fit):
    """Metrics are those of the last validation, and every option is part of the commands."""
    begin = next(i for i, line in enumerate(fitted.out) if line.startswith("fit: finished"))
    assert re.fullmatch(r"fit: finished after 10 steps, 10 epochs, 0:\d\d:\d\d", fitted.out[begin])
    assert fitted.out[begin + 1] == "  metrics of the exported weights:"
    end = fitted.out.index(f"  export: {fitted.root}/export")
    printed = dict(line.split() for line in fitted.out[begin + 2 : end])
    last = {tag: values[-1][1] for tag, values in scalars(fitted.root).items() if tag.startswith("val/")}
    assert printed == {tag: f"{value:.4g}" for tag, value in last.items()}
    reader = {"class_path": "Solutions", "init_args": {"path": str(fitted.root.parents[2] / "labels"), "limit": 8}}
    assert fitted.out[end + 1 :] == [
        "  next:",
        f"    sampling convert --input {shlex.quote(json.dumps(reader))} --output {fitted.root}/held_out.jsonl",
        f"    sampling score --input {fitted.root}/held_out.jsonl --verifiers '{{prm: {fitted.root}/export}}' "
        f"--output {fitted.root}/scores",
        f"    sampling report --scores {fitted.root}/scores --output {fitted.root}/report",
    ]


@pytest.mark.slow
def test_the_next_commands_run_as_they_are_printed(fitted: Fit):
    for line in fitted.out[fitted.out.index("  next:") + 1 :]:
        command = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert (fitted.root / "report" / "report.html").is_file()


def test_a_short_fit_logs_every_step(fitted: Fit):
    """Losses, rates and speeds at each of 10 steps, metrics at both validations, in both loggers."""
    logged = {tag: values for tag, values in scalars(fitted.root).items() if values and not tag.startswith("final/")}
    counts = {tag: len(values) for tag, values in logged.items() if tag not in ("epoch", "checkpoints/share")}
    assert {"train/loss", "lr-AdamW", "throughput/waiting", "memory/peak_gib", "val/loss"} <= {
        tag.split("/pg")[0] for tag in counts
    }
    assert all(number == (2 if tag.startswith("val/") else 10) for tag, number in counts.items()), counts
    with (fitted.root / "numbers" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {tag: sum(bool(row[tag]) for row in rows) for tag in counts} == counts


def test_figures_and_solutions_are_in_both_loggers(fitted: Fit):
    board = set(scalars(fitted.root))
    assert {"calibration", "precision_recall_curve", "solution/0/text_summary"} <= board
    numbers = fitted.root / "numbers"
    for name in ("calibration", "precision_recall_curve"):
        assert len(list((numbers / name).glob("step=*.png"))) == 2
    with (numbers / "solution" / "step=10.csv").open() as file:
        first = list(csv.DictReader(file))[:5]
    assert [(row["step"], row["label"]) for row in first] == [
        ("1", "0.75"), ("2", "0.75"), ("3", "0.75"), ("4", "0.75"), ("5", "1.0"),
    ]  # fmt: skip
    assert all(0 < float(row["value"]) < 1 for row in first)
    assert {row["correct"] for row in first} == {"correct"}


def test_hyperparameters_are_logged_once_with_final_metrics(fitted: Fit):
    """In TensorBoard's HParams tab, and as a file from the start."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    events = EventAccumulator(str(fitted.root / "logs"))
    events.Reload()
    plugin = events.PluginTagToContent("hparams")
    assert set(plugin) == {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"}
    started = metadata.parse_session_start_info_plugin_data(plugin["_hparams_/session_start_info"])
    assert started.hparams["model"].string_value == "ProcessRewardModel"
    assert started.hparams["model.optimizer.lr"].number_value == 3e-3
    found = scalars(fitted.root)
    final = {tag.removeprefix("final/"): values for tag, values in found.items() if tag.startswith("final/")}
    assert {"val/loss", "val/step_auroc", "train/loss"} <= final.keys()
    assert all(values == [(10, found[tag][-1][1])] for tag, values in final.items())
    for place in ("logs", "numbers"):
        saved = yaml.safe_load((fitted.root / place / "hparams.yaml").read_text())
        assert (saved["seed_everything"], saved["data.train"], saved["trainer.max_epochs"]) == (3, "Solutions", 10)


# A fit whose files are all another recipe's goes on with that one.
FITS = [
    (file, stages, i)
    for file in sorted((ROOT / "lit_configs").rglob("pipeline.yaml"))
    for stages in [read_pipeline(file)[0]]
    for i, stage in enumerate(stages)
    if stage.run == FIT and any(Path(config).parent == file.parent for config in stage.configs)
]


@pytest.mark.parametrize(("file", "stages", "i"), FITS, ids=[f"{f.parent.name}:{s[i].name}" for f, s, i in FITS])
def test_a_recipe_names_its_next_stage(file, stages, i):
    """With the stage's own variables given, as its pipeline prints the command; those go with the stage."""
    configs, own = [c for c in stages[i].configs if c != OVERLAYS], dict(stages[i].variables)
    following = [stage.name for stage in stages[i + 1 : i + 2]]
    expected = ["sampling", "pipeline", str(file.parent), "--from", *following, "--set", "seed=1"]
    assert next_stage(configs, own | {"seed": "1"}) == (expected if following else None)
    overlaid = [*configs, "lit_configs/overlays/ddp.yaml"]
    found = next_stage(overlaid, own)
    assert found == ([*expected[:-2], "--overlay", "lit_configs/overlays/ddp.yaml"] if following else None)


def test_a_readers_defaults_are_left_out_also_those_of_the_classes_it_extends():
    """As a configuration is saved, with every option."""
    from stepverify.monitoring.outline import _short
    from stepverify.readers import Stepwise

    options = {"path": "rows.jsonl", "limit": None, "strict": False, "multiline": "keep", "fold": "validation"}
    described = {"class_path": "stepverify.readers.Stepwise", "init_args": options}
    kept = {"path": "rows.jsonl", "fold": "validation"}
    assert _short(described, Stepwise("rows.jsonl")) == {"class_path": "Stepwise", "init_args": kept}
    mine = _short(described | {"class_path": "mine.Rows"}, Stepwise("rows.jsonl"))
    assert mine["class_path"] == "mine.Rows", "found by its whole name alone"


def test_a_fit_outside_of_a_recipe_has_no_next_stage(tmp_path: Path):
    assert next_stage([str(tmp_path / "prm.yaml")], {}) is None
    assert next_stage([], {}) is None


def test_a_stage_of_a_pipeline_knows_that_it_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What `sampling pipeline` starts sees the variable by which a fit leaves out the next command."""
    from sampling.pipeline import run_process

    (tmp_path / "look.py").write_text(f"import os, sys\nsys.exit(0 if os.environ.get({IN_PIPELINE!r}) else 1)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_process(["look"]) == 0
