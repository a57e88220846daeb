"""Runs that are stopped, killed and cut off at any point, and go on as if nothing had been."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import lightning  # noqa: E402

from stepverify.cli import main  # noqa: E402
from tests.test_fit import BASE, config, scalars, weights  # noqa: E402

ROOT = Path(__file__).parents[1]
# 8 steps in two epochs, with dropout; validation has two batches.
RUN = {
    "data__eval_pack_tokens": 800,
    "model__init_args__backbone": {"path": BASE, "weights": "random", "attention_dropout": 0.2},
}


class Interrupt(lightning.Callback):
    """Sends this process a signal at a hook of one optimizer step, counted from 1."""

    def __init__(self, hook: str, step: int, signal: str, rank: int = 0, size: int | None = None) -> None:
        def strike(trainer: lightning.Trainer, *args: Any, **kwargs: Any) -> None:
            if trainer.global_step + (hook == "on_before_optimizer_step") == step and trainer.global_rank == rank:
                if size is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
                else:
                    os.kill(os.getpid(), getattr(__import__("signal"), signal))

        setattr(self, hook, strike)


def interrupt(hook: str, step: int, signal: str = "SIGTERM", **more: Any) -> dict[str, Any]:
    arguments = {"hook": hook, "step": step, "signal": signal} | more
    return {"class_path": "tests.test_interrupt.Interrupt", "init_args": arguments}


def every(steps: int, **more: Any) -> dict[str, Any]:
    return {"class_path": "stepverify.callbacks.Checkpoints", "init_args": {"every_n_train_steps": steps} | more}


def fit(root: Path, *callbacks: dict[str, Any], **changes: Any) -> None:
    main(
        [
            "fit",
            "--config",
            config("GeneratorModule", root, **RUN, **changes, trainer__callbacks=[*callbacks]),
            "--ckpt_path",
            "last",
        ]
    )


def fit_apart(root: Path, *callbacks: dict[str, Any], **changes: Any) -> subprocess.CompletedProcess:
    file = config("GeneratorModule", root, **RUN, **changes, trainer__callbacks=[*callbacks])
    command = [sys.executable, "-m", "stepverify.cli", "fit", "--config", file, "--ckpt_path", "last"]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300)


def traces(root: Path) -> dict[str, list[tuple[int, float]]]:
    """Each logged value; a step that was done twice must have come out the same."""
    seen = scalars(root)
    return {tag: sorted(set(seen[tag])) for tag in ("train/loss", "train/grad_norm", "val/loss", "lr-AdamW/pg1")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    root = tmp_path_factory.mktemp("whole") / "run"
    fit(root)
    return root


def assert_same(root: Path, whole: Path) -> None:
    assert traces(root) == traces(whole)
    one, two = weights(root), weights(whole)
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize(
    ("hook", "step", "stopped"),
    [
        ("on_before_optimizer_step", 1, 1),
        ("on_before_optimizer_step", 6, 6),
        ("on_train_batch_end", 3, 3),
        ("on_before_optimizer_step", 4, 4),  # the last step of an epoch: its validation is broken off
        ("on_validation_batch_start", 4, 4),
        ("on_validation_epoch_end", 4, 5),
        ("on_before_optimizer_step", 8, 8),  # the last step of all
    ],
)
def test_sigterm_ends_after_the_running_step(
    hook, step, stopped, tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture
):
    root = tmp_path / "run"
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        fit(root, interrupt(hook, step))
    assert ended.value.code == 143
    error = capsys.readouterr().err
    assert f"stepverify fit: stopped by SIGTERM after step {stopped}; go on with --ckpt_path last\n" in error
    assert "Traceback" not in error
    assert not (root / "export").exists()
    assert (root / "checkpoints" / "last.ckpt").resolve().name == f"step={stopped}.ckpt"
    assert signal.getsignal(signal.SIGTERM) == handler
    fit(root)
    assert_same(root, whole)


def test_killed_twice_equals_uninterrupted(tmp_path: Path, whole: Path):
    """SIGKILL in the first and in the second epoch, at a random step and place, with checkpoints at every other step."""
    root = tmp_path / "run"
    draw = random.Random()
    hooks = ["on_before_optimizer_step", "on_train_batch_start", "on_train_batch_end", "on_validation_batch_start"]
    for steps in ((1, 2, 3, 4), (5, 6, 7, 8)):
        step, hook = draw.choice(steps), draw.choice(hooks[:3])
        print(hook, step)  # shown if this fails
        killed = fit_apart(root, every(2), interrupt(hook, step, "SIGKILL"))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (root / "export").exists()
    resumed = fit_apart(root, every(2))
    assert resumed.returncode == 0, resumed.stderr
    assert_same(root, whole)
