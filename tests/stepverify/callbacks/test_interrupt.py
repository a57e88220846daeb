"""Runs that are stopped, killed and cut off at any point, and go on as if nothing had been."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")


from stepverify.callbacks import files  # noqa: E402
from stepverify.cli import main  # noqa: E402
from tests.helpers.interruptions import assert_same, every, fit, fit_apart, interrupt  # noqa: E402
from tests.helpers.runs import config, weights  # noqa: E402

# Two saves: each publishes a file twice and a link once, and removes at least six things that may have been there.
WRITER = [("torch.save", 2), ("stepverify.atomic.publish", 6), ("stepverify.atomic.remove", 12)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    root = tmp_path_factory.mktemp("whole") / "run"
    fit(root)
    return root


@pytest.mark.parametrize(
    ("hook", "step", "stopped"),
    [
        pytest.param("on_before_optimizer_step", 1, 1, marks=pytest.mark.slow),
        ("on_before_optimizer_step", 6, 6),
        pytest.param("on_train_batch_end", 3, 3, marks=pytest.mark.slow),
        pytest.param(
            "on_before_optimizer_step", 4, 4, marks=pytest.mark.slow
        ),  # the last step of an epoch: its validation is broken off
        ("on_validation_batch_start", 4, 4),
        pytest.param("on_validation_epoch_end", 4, 5, marks=pytest.mark.slow),
        pytest.param("on_before_optimizer_step", 8, 8, marks=pytest.mark.slow),  # the last step of all
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
    assert f"stepverify fit: stopped by SIGTERM after step {stopped}; resume with --ckpt_path last\n" in error
    assert "Traceback" not in error
    assert not (root / "export").exists()
    assert (root / "checkpoints" / "last.ckpt").resolve().name == f"step={stopped}.ckpt"
    assert signal.getsignal(signal.SIGTERM) == handler
    fit(root)
    assert_same(root, whole)


@pytest.mark.slow
def test_killed_twice_equals_uninterrupted(tmp_path: Path, whole: Path):
    """SIGKILL in the first epoch, at a random step and place, and then in the thread that writes checkpoints.

    They are saved at every other step.
    """
    root = tmp_path / "run"
    draw = random.Random()
    hooks = ["on_before_optimizer_step", "on_train_batch_start", "on_train_batch_end", "on_validation_batch_start"]
    function, calls = draw.choice(WRITER)
    writer = {"function": function, "call": draw.randrange(calls)}
    strikes = [
        interrupt(draw.choice(hooks[:3]), draw.choice((1, 2, 3, 4)), "SIGKILL"),
        {"class_path": "tests.helpers.interruptions.KillWriter", "init_args": writer},
    ]
    for strike in strikes:
        print(strike)  # shown if this fails
        killed = fit_apart(root, every(2), strike)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (root / "export").exists()
    resumed = fit_apart(root, every(2))
    assert resumed.returncode == 0, resumed.stderr
    assert_same(root, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("function", "calls"), WRITER)
def test_killed_at_every_call_of_the_writer(function: str, calls: int, tmp_path: Path, whole: Path):
    """One run, killed at the first call, gone on with and killed at the second, and so on until it ends."""
    root = tmp_path / "run"
    for call in range(calls):
        strike = {
            "class_path": "tests.helpers.interruptions.KillWriter",
            "init_args": {"function": function, "call": call},
        }
        done = fit_apart(root, every(1), strike)
        print(call, done.returncode, [path.name for path in files.find(root)])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert all(files.defect(path) is None for path in files.find(root))
    assert fit_apart(root, every(1)).returncode == 0
    assert_same(root, whole)


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_max_steps_at_the_end_of_an_epoch(accumulate: int, tmp_path: Path, whole: Path):
    """4 batches are an epoch: stopped there by ``max_steps`` and gone on with, the next one has the order it has at once."""
    more = {"trainer__accumulate_grad_batches": accumulate}
    if accumulate > 1:
        whole = tmp_path / "whole"
        fit(whole, **more)
    for steps in (4, 8):
        fit(tmp_path / "run", **more, trainer__max_steps=steps // accumulate, trainer__max_epochs=None)
    assert_same(tmp_path / "run", whole)


@pytest.fixture(scope="module")
def four_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("four") / "run"
    fit(root, every(2, final="all"), trainer__max_steps=4, trainer__max_epochs=None, trainer__logger=False)
    assert sorted(p.name for p in (root / "checkpoints").iterdir()) == ["last.ckpt", "step=2.ckpt", "step=4.ckpt"]
    return root


@pytest.fixture
def two(four_steps: Path, tmp_path: Path) -> Path:
    """A run of 4 steps with a checkpoint after steps 2 and 4."""
    shutil.copytree(four_steps, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def test_a_torn_checkpoint_is_passed_over(two: Path, capsys: pytest.CaptureFixture):
    """Half of a file, and one flipped byte in the middle; where no checkpoint is whole, nothing starts afresh."""
    newest, older = (two / "checkpoints" / f"step={n}.ckpt" for n in (4, 2))
    assert files.last(two) == newest
    data = newest.read_bytes()
    newest.write_bytes(data[: len(data) // 2])
    assert files.last(two) == older
    assert f"{newest} is torn" in capsys.readouterr().err
    newest.write_bytes(data)
    assert files.last(two) == newest
    flipped = bytearray(older.read_bytes())
    flipped[len(flipped) // 2] ^= 255
    older.write_bytes(flipped)
    newest.write_bytes(data[:-1])
    with pytest.raises(SystemExit) as ended:
        fit(two, trainer__max_steps=6, trainer__max_epochs=None, trainer__logger=False)
    assert ended.value.code == 2
    assert "there is no other checkpoint: remove" in capsys.readouterr().err


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path):
    """From step 3 on no file may grow beyond 100 kB: step 4 cannot be saved, step 2 is there and goes on."""
    root = tmp_path / "run"
    # The signal that comes with the limit is ignored by Python, so the write fails as on a full disk.
    failed = fit_apart(root, every(2), interrupt("on_before_optimizer_step", 3, "SIGXFSZ", size=100_000))
    assert failed.returncode == 2
    assert "step=4.ckpt: not saved" in failed.stderr
    assert files.last(root) == root / "checkpoints" / "step=2.ckpt"


def test_checkpoints_hold_data_alone(two: Path):
    checkpoint = torch.load(two / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4


@pytest.mark.parametrize(
    "hook", ["on_train_batch_end", "on_before_optimizer_step"]
)  # between two steps, and in the middle of one
@pytest.mark.slow
def test_slurm_requeues(hook: str, tmp_path: Path, whole: Path):
    """SIGUSR1 has Lightning save and requeue; the SIGTERM by which SLURM then ends the job saves the step, and goes first."""
    root, tools = tmp_path / "run", tmp_path / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text('#!/bin/sh\necho "$@" > "$(dirname "$0")/called"\n')
    (tools / "scontrol").chmod(0o755)
    slurm = {f"SLURM_{key}": "0" for key in ("PROCID", "LOCALID", "NODEID")} | {
        "SLURM_NTASKS": "1",
        "SLURM_JOB_ID": "7",
    }
    env = slurm | {"SLURM_JOB_NAME": "fit", "PATH": f"{tools}:{os.environ['PATH']}"}
    stopped = fit_apart(root, interrupt(hook, 3, "SIGUSR1"), interrupt("on_train_batch_end", 3), env=env)
    assert stopped.returncode == 143, stopped.stderr
    assert (tools / "called").read_text() == "requeue 7\n"
    assert (root / "hpc_ckpt_1.ckpt").is_file()
    assert [path.name for path in files.find(root)] == ["step=3.ckpt", "hpc_ckpt_1.ckpt"]
    assert fit_apart(root, env=env).returncode == 0
    assert_same(root, whole)


def test_saved_by_the_clock(tmp_path: Path):
    """An interval of nothing saves every step; so many are kept."""
    clock = {
        "class_path": "stepverify.callbacks.Checkpoints",
        "init_args": {"train_time_interval": "0:00:00", "keep": 3, "max_share": 1.0, "final": "all"},
    }
    fit(tmp_path / "run", clock, trainer__max_steps=4, trainer__max_epochs=None, trainer__logger=False)
    assert [p.name for p in files.find(tmp_path / "run")] == ["step=4.ckpt", "step=3.ckpt", "step=2.ckpt"]


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_checkpoint_is_not_run(two: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """Neither from a file nor from a folder of shards, the latter without ``meta.pt`` being read at all."""
    newest = files.last(two)
    torch.save(torch.load(newest, weights_only=True) | {"more": Planted(tmp_path / "ran")}, newest)
    with pytest.raises(SystemExit) as ended:
        fit(two, trainer__max_steps=6, trainer__max_epochs=None, trainer__logger=False)
    assert ended.value.code == 2
    assert "holds more than data, which is not loaded: " in capsys.readouterr().err
    shards = tmp_path / "shards.ckpt"
    shards.mkdir()
    (shards / ".metadata").write_bytes(pickle.dumps(Planted(tmp_path / "ran")))
    assert "posix.mkdir has no place in a checkpoint" in str(files.defect(shards))
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_lora_checkpoints_hold_what_is_trained(tmp_path: Path, tiny_model_dir: Path):
    """The adapters alone; and 3 + 5 steps from them are 8 steps at once."""
    backbone = {"path": str(tiny_model_dir), "lora": {"rank": 2, "dropout": 0.1}}
    for name, stops in (("whole", (8,)), ("parts", (3, 8))):
        for stop in stops:
            limits = {"trainer__max_steps": stop, "trainer__max_epochs": None}
            config_file = config(
                "GeneratorModule", tmp_path / name, model__init_args__backbone=backbone, **limits,
                trainer__callbacks=[every(1)],
            )  # fmt: skip
            main(["fit", "--config", config_file, "--ckpt_path", "last"])
    saved = torch.load(tmp_path / "parts" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert saved
    assert all("lora_" in name for name in saved)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(one[k], other[k]) for k in one)
