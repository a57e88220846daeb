"""The checkpoint with the best validation is kept and exported, whatever comes after it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import lightning  # noqa: E402

from tests.helpers.best import best_of, fit, names, saved, scripted  # noqa: E402
from tests.helpers.runs import weights  # noqa: E402


def assert_exported(root: Path, name: str) -> None:
    exported, state = weights(root), saved(root, name)
    assert all(torch.equal(exported[k], state[k]) for k in exported)


@pytest.mark.slow
def test_the_best_is_exported_over_a_resume(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Epoch 2 of 4 is the best. What is known of it comes from the checkpoint that the run goes on with."""
    root, run = tmp_path / "run", (scripted(0.1, 0.5, 0.2, 0.5), best_of())
    fit(root, 2, *run)
    assert_exported(root, "last.ckpt")
    fit(root, 4, *run)
    files = {"step=16.ckpt": "step=16.ckpt", "step=8.ckpt": "step=8.ckpt"}
    assert names(root) == files | {"last.ckpt": "step=16.ckpt", "best.ckpt": "step=8.ckpt"}
    assert_exported(root, "best.ckpt")
    assert not torch.equal(*(saved(root, f"{name}.ckpt")["lm_head.weight"] for name in ("best", "last")))
    card = (root / "export" / "README.md").read_text()
    assert "16 steps in 4 epochs on 1 device. These weights are of step 8, with 0.5 the highest val/scripted.\n" in card
    assert "## Validation of step 8\n" in card
    assert "| scripted | 0.5 |" in card
    # Torn, it is passed over: by a run that is at its end, and by one that goes on.
    data = (root / "checkpoints" / "step=8.ckpt").read_bytes()
    (root / "checkpoints" / "step=8.ckpt").write_bytes(data[:-1])
    fit(root, 4, *run)
    assert "already finished" in capsys.readouterr().out
    fit(root, 4, *run, trainer__log_every_n_steps=2)
    assert "step=8.ckpt was the best, but is torn" in capsys.readouterr().err
    assert_exported(root, "last.ckpt")
    fit(root, 6, scripted(0.1, 0.5, 0.2, 0.5, 0.4, 0.3), best_of())
    assert "the best of the following ones is chosen" in capsys.readouterr().err
    assert_exported(root, "step=20.ckpt")


def test_the_best_within_an_epoch(tmp_path: Path, one_layer_dir: Path):
    """With adapters, the best after 2 of 4 steps: saved there, and gone on with from there; EarlyStopping ends the run."""
    stop = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/scripted", "mode": "max", "patience": 2}}
    script = {
        "class_path": "tests.helpers.best.Scripted",
        "init_args": {"values": [0.5, 0.1, 0.3, 0.2], "every": 2},
    }
    backbone = {"path": str(one_layer_dir), "lora": {"rank": 2, "dropout": 0.1}}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for root in (whole, killed):
        fit(
            root,
            4,
            stop,
            script,
            best_of(final="all"),
            trainer__val_check_interval=2,
            model__init_args__backbone=backbone,
        )
        links = {"best.ckpt": "step=2.ckpt", "last.ckpt": names(root)["last.ckpt"]}
        assert names(root) == {name: name for name in links.values()} | links
        assert "These weights are of step 2, with 0.5 the" in (root / "export" / "README.md").read_text()
        if root == whole:  # killed with nothing but this one on disk
            (killed / "checkpoints").mkdir(parents=True)
            shutil.copy(whole / "checkpoints" / "step=2.ckpt", killed / "checkpoints")
    assert names(whole) == names(killed)
    for one, other in [(weights(whole), weights(killed)), (saved(whole, "last.ckpt"), saved(killed, "last.ckpt"))]:
        assert all(torch.equal(one[k], other[k]) for k in one)
    adapters = saved(whole, "best.ckpt")
    assert all("lora_" in name for name in adapters)
    assert not all(torch.equal(adapters[k], other[k]) for k in adapters)


def test_a_metric_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture):
    cases = {
        "there is no val/scriptd, but val/loss, val/scripted": (scripted(0.1), best_of("val/scriptd")),
        "monitor and mode (min or max) go together, not val/loss and None": (best_of("val/loss", None),),
    }
    for message, callbacks in cases.items():
        with pytest.raises(SystemExit) as stopped:
            fit(tmp_path / "run", 1, *callbacks)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", 1, best_of(), data__validation=None)
    assert "give data.validation" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


class Silent(lightning.Callback):
    """May log anything, for all that is known."""


def test_a_metric_that_no_validation_gives(tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", 1, {"class_path": "tests.stepverify.callbacks.test_best.Silent"}, best_of())
    assert "there is no val/scripted, but val/loss" in capsys.readouterr().err
