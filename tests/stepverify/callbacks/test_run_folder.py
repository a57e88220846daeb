"""Which fits a run's folder takes, and what they leave of an earlier run in it."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from stepverify.callbacks import files  # noqa: E402
from stepverify.cli import main  # noqa: E402
from stepverify.data.datamodule import SolutionData  # noqa: E402
from stepverify.jsonl import MANIFEST  # noqa: E402
from tests.helpers.interruptions import every, fit_apart, interrupt  # noqa: E402
from tests.helpers.runs import BASE, config, scalars, weights  # noqa: E402

SHORT = {"trainer__max_epochs": 1}  # 4 steps


def fit(root: Path, *words: str, **changes: Any) -> None:
    main(["fit", "--config", config("GeneratorModule", root, **SHORT | changes), *words])


def refused(capsys: pytest.CaptureFixture, root: Path, *words: str, **changes: Any) -> str:
    """The one line in which a fit is refused; the folder is as it was."""
    before = digest(root)
    with pytest.raises(SystemExit) as stopped:
        fit(root, *words, **changes)
    assert stopped.value.code == 2
    assert digest(root) == before
    said = capsys.readouterr().err
    return said.removeprefix(f"stepverify fit: {root}: ")


def digest(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("once") / "run"
    fit(root)
    return root


@pytest.fixture
def done(once: Path, tmp_path: Path) -> Path:
    """A finished run."""
    shutil.copytree(once, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def test_a_finished_run_is_not_overwritten(done: Path, capsys: pytest.CaptureFixture):
    choices = "start over with --overwrite true, or choose another trainer.default_root_dir\n"
    assert refused(capsys, done) == f"holds a finished run; resume with --ckpt_path last, {choices}"
    other = {"model__init_args__warmup": 0.5}
    made = "made with model.init_args.warmup = 0.0, now it is 0.5"
    assert refused(capsys, done, **other) == f"holds a run that was {made}; {choices}"
    assert refused(capsys, done, "--ckpt_path", "last", **other) == f"its checkpoint was {made}; {choices}"
    assert "holds a run that" in refused(capsys, done, seed_everything=4)
    assert "omit one of the two" in refused(capsys, done, "--overwrite", "true", "--ckpt_path", "last")
    shutil.rmtree(done / "checkpoints")
    assert refused(capsys, done) == f"holds a finished run; resume with --ckpt_path last, {choices}"
    said = refused(capsys, done, "--ckpt_path", "last", trainer__max_epochs=2)
    assert "export: an export, but there is no checkpoint to resume from; start over" in said


def test_the_same_command_again_leaves_a_finished_run_as_it_is(
    done: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Without reading data."""
    before = digest(done)
    with monkeypatch.context() as patched:
        patched.setattr(SolutionData, "setup", None)
        fit(done, "--ckpt_path", "last")
    assert capsys.readouterr().out == f"{done}: already finished, {done}/export is left as it is\n"
    assert digest(done) == before
    (done / MANIFEST).unlink()  # a run of before there were manifests
    fit(done, "--ckpt_path", "last")
    assert f"{done}: nothing was left to train after step 4; exported again" in capsys.readouterr().err
    assert json.loads((done / MANIFEST).read_text())["finished"]


@pytest.mark.parametrize(
    "logger",
    [False, pytest.param({"class_path": "CSVLogger", "init_args": {"save_dir": "RUN"}}, marks=pytest.mark.slow)],
)  # TensorBoard's in the other tests
def test_configurations_are_compared_whatever_the_logger(logger, tmp_path: Path, capsys: pytest.CaptureFixture):
    """By the manifest: another configuration is refused, the same one is finished."""
    root = tmp_path / "run"
    if logger:
        logger["init_args"]["save_dir"] = str(root)
    fit(root, trainer__logger=logger)
    said = refused(capsys, root, "--ckpt_path", "last", trainer__logger=logger, model__init_args__warmup=0.5)
    assert "its checkpoint was made with model.init_args.warmup = 0.0, now it is 0.5; " in said
    fit(root, "--ckpt_path", "last", trainer__logger=logger)
    assert "already finished" in capsys.readouterr().out


def test_an_extended_run_goes_on(done: Path, once: Path):
    """4 and 4 steps; test_interrupt.py compares such runs with 8 steps at once."""
    fit(done, "--ckpt_path", "last", trainer__max_epochs=2)
    losses = dict(scalars(done)["train/loss"])
    assert list(losses) == [*range(8)]
    assert dict(scalars(once)["train/loss"]).items() <= losses.items()
    one, other = weights(done), weights(once)
    assert not any(torch.equal(one[k], other[k]) for k in one)
    manifest = json.loads((done / MANIFEST).read_text())
    assert (manifest["stage"], manifest["finished"], manifest["summary"]) == (
        "fit",
        True,
        {"steps": 8, "epochs": 2, "final": "last", "checkpoints": ["step=4.ckpt", "step=8.ckpt"]},
    )


@pytest.mark.slow
def test_an_extended_run_that_was_killed_is_not_finished(tmp_path: Path):
    """It has the export of before, and no newer checkpoint: it goes on all the same."""
    root, more = tmp_path / "run", {"trainer__max_epochs": None, "trainer__max_steps": 6}
    assert fit_apart(root, every(2), **more | {"trainer__max_steps": 4}).returncode == 0
    killed = fit_apart(root, every(2), interrupt("on_before_optimizer_step", 5, "SIGKILL"), **more)
    assert killed.returncode == -signal.SIGKILL
    assert files.last(root) == root / "checkpoints" / "step=4.ckpt"
    exported = (root / "export" / "model.safetensors").read_bytes()
    resumed = fit_apart(root, every(2), **more)
    assert resumed.returncode == 0, resumed.stderr
    assert "already finished" not in resumed.stdout
    assert (root / "export" / "model.safetensors").read_bytes() != exported
    assert "already finished" in fit_apart(root, every(2), **more).stdout


def test_overwriting_removes_the_earlier_run_as_a_whole(done: Path, capsys: pytest.CaptureFixture):
    """Nothing is mixed, and what is no run's stays."""
    for folder in (done, done / "logs", done / "checkpoints"):
        (folder / "notes.txt").write_text("mine")
    (done / "hpc_ckpt_1.ckpt").write_bytes(b"")
    before = digest(done)
    fit(done, "--overwrite", "true", seed_everything=4, trainer__max_epochs=None, trainer__max_steps=3)
    assert "removed what an earlier fit left there (checkpoints, export, hpc_ckpt_1.ckpt, logs, manifest.json)" in (
        capsys.readouterr().err
    )
    after = digest(done)
    notes = {"notes.txt", "logs/notes.txt", "checkpoints/notes.txt"}
    assert {name for name in before if after.get(name) == before[name]} - notes == {
        "export/tokenizer.json", "export/tokenizer_config.json", "export/config.json", "export/generation_config.json",
        "export/stepverify.json", "export/training_problems.txt",
    } & before.keys()  # fmt: skip
    assert notes <= after.keys()
    assert [p.name for p in files.find(done)] == ["step=3.ckpt"]
    assert [step for step, _ in scalars(done)["train/loss"]] == [0, 1, 2]
    saved = done / "logs" / "config.yaml"
    assert "overwrite" not in saved.read_text()
    main(["validate", "--config", str(saved), "--ckpt_path", str(files.last(done))])


def test_an_overwriting_fit_that_cannot_begin_removes_nothing(done: Path, capsys: pytest.CaptureFixture):
    """Neither where its data cannot be read, nor where its model cannot be loaded; only an empty log is added."""
    bad = {"class_path": "stepverify.readers.Solutions", "init_args": {"path": "/nowhere/data"}}
    before = digest(done)
    for changes in ({"data__train": bad}, {"model__init_args__backbone": {"path": BASE}}):
        with pytest.raises(SystemExit):
            fit(done, "--overwrite", "true", **changes)
    said = capsys.readouterr().err
    assert "/nowhere/data: no such file or folder" in said
    assert "no causal language model could be loaded" in said
    after = digest(done)
    assert {name: after[name] for name in before} == before
    assert all("tfevents" in name for name in after.keys() - before.keys())
    fit(done, "--ckpt_path", "last")
    assert "already finished" in capsys.readouterr().out


@pytest.mark.slow
def test_a_fit_that_saved_nothing_blocks_no_other(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Killed at step 3, before any checkpoint; the next one has another seed, and its logs are its own alone."""
    root = tmp_path / "run"
    killed = fit_apart(root, interrupt("on_before_optimizer_step", 3, "SIGKILL"))
    assert killed.returncode == -signal.SIGKILL
    assert (root / "logs" / "config.yaml").is_file()
    fit(root, seed_everything=5)
    assert "removed what an earlier fit left there (logs, manifest.json)" in capsys.readouterr().err
    assert [step for step, _ in scalars(root)["train/loss"]] == [0, 1, 2, 3]


def export_to(folder: Path) -> list[dict[str, Any]]:
    return [{"class_path": "HuggingFaceExport", "init_args": {"folder": str(folder)}}]


@pytest.mark.slow
def test_only_an_export_is_replaced_by_an_export(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """Somebody's folder never; that of another run if asked for."""
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "thesis.tex").write_text("precious")
    for words in ([], ["--overwrite", "true"]):
        with pytest.raises(SystemExit):
            fit(tmp_path / "new", *words, trainer__callbacks=export_to(mine))
        assert f"{mine}: exists, and is not the export of a fit (no stepverify.json); choose" in capsys.readouterr().err
    assert digest(mine) == {"thesis.tex": hashlib.sha256(b"precious").hexdigest()}
    before = digest(done)
    with pytest.raises(SystemExit):
        fit(tmp_path / "new", trainer__callbacks=export_to(done / "export"))
    assert capsys.readouterr().err.startswith(f"stepverify fit: {done}/export: holds the export of an earlier fit; ")
    assert digest(done) == before
    fit(tmp_path / "new", "--overwrite", "true", trainer__callbacks=export_to(done / "export"), seed_everything=5)
    after = digest(done)
    assert {name for name in before if after.get(name) != before[name]} == {
        "export/README.md",
        "export/model.safetensors",
    }


def test_commands_that_train_nothing_leave_the_run_alone(done: Path):
    """``fast_dev_run``, and ``validate``, which logs beside it."""
    before = digest(done)
    fit(done, trainer__fast_dev_run=True, seed_everything=9)
    assert digest(done) == before
    main(["validate", "--config", config("GeneratorModule", done, **SHORT, seed_everything=9), "--ckpt_path", "last"])
    after = digest(done)
    assert {name: after[name] for name in before} == before
    assert "logs/config_validate.yaml" in after
    fit(done, "--ckpt_path", "last")
    assert digest(done) == after


@pytest.mark.slow
def test_a_recipe_that_is_run_again_changes_nothing(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    """The quickstart in small, by the commands of its pipeline: what has finished is left alone, but the report is renewed."""
    from sampling.__main__ import main as sampling
    from tests.helpers import recipes

    monkeypatch.chdir(Path(__file__).parents[3])
    commands = recipes.small_quickstart(tmp_path, tiny_model_dir)
    trees = []
    for _ in range(2):
        for program, *words in commands:
            if program == "sampling":
                sampling(words)
            else:
                main(words)
        trees.append({name: sha for name, sha in digest(tmp_path).items() if not name.startswith("report/")})
    assert len(trees[0]) > 40
    assert trees[0] == trees[1]
