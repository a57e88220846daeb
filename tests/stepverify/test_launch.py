"""Processes of one run, started by others: how many they are, and how SIGTERM ends one that waits for another."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import lightning
import pytest

from stepverify import trainer
from stepverify.callbacks import files, stuck
from stepverify.cli import main
from stepverify.records import InputError
from tests.helpers.interruptions import every
from tests.helpers.processes import ROOT, stepverify
from tests.helpers.runs import config


class Sleep(lightning.Callback):
    """Has rank 1 sleep in the third step, and rank 0 get SIGTERM while it waits for that in a collective operation."""

    def setup(self, *args, **kwargs) -> None:
        stuck.GRACE_SECONDS = 3.0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == 2:
            if trainer.global_rank == 1:
                time.sleep(1000)
            threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()


@pytest.mark.slow
def test_sigterm_ends_a_process_that_waits_in_c(tmp_path: Path):
    """No handler in Python runs while a thread waits for a lock of C. Outside a step nothing is ended."""
    code = f"""
import ctypes, os, signal, threading, time
from types import SimpleNamespace
from stepverify.callbacks import stuck
from stepverify.callbacks.background import BackgroundSave
stuck.GRACE_SECONDS = 0.5
signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
trainer = SimpleNamespace(world_size=2, local_rank=0, global_rank=0, global_step=2, default_root_dir={str(tmp_path)!r})
watch = stuck.StuckStep()
watch.watch(trainer, BackgroundSave())
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(1.5)
print("still here", flush=True)
watch.arm()
libc, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(lock)
libc.pthread_mutex_lock(lock)
"""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step=2.ckpt").touch()
    (tmp_path / "checkpoints" / "last.ckpt").symlink_to("step=2.ckpt")
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.stdout == "handled\nstill here\n"
    assert done.returncode == 143
    assert (
        f"SIGTERM, but step 3 has not ended in 0.5 s (rank 0 waits, another process may be stuck): ended; {tmp_path}/"
        in (done.stderr)
    )


@pytest.mark.slow
def test_sigterm_ends_a_step_that_waits_for_another_process(tmp_path: Path):
    """A handler in Python would never run: the main thread waits in C."""
    file = config(
        "GeneratorModule", tmp_path / "run",
        trainer__callbacks=[
            every(1),
            {"class_path": "tests.stepverify.test_launch.Sleep"},
        ],
    )  # fmt: skip
    done = stepverify("fit", "--config", file, "--trainer.devices", "2")
    assert done.returncode == 143, done.stderr[-2000:]
    newest = tmp_path / "run" / "checkpoints" / "step=2.ckpt"
    said = r"stepverify fit: SIGTERM, but step 3 has not ended in [\d.]+ s \(rank 0 waits, another process may be stuck\): ended; "
    assert re.search(said + re.escape(f"{newest} stands, resume with --ckpt_path last"), done.stderr)
    assert files.defect(newest) is None


TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
SLURM = {"SLURM_JOB_NAME": "fit", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


@pytest.mark.parametrize(
    ("environment", "devices", "said"),
    [
        (TORCHRUN, 1, "devices: 1 and trainer.num_nodes: 1 are 1 processes, the launcher has started 2 (WORLD_SIZE); give torchrun --nproc_per_node=1"),
        (TORCHRUN, 3, "devices: 3 and trainer.num_nodes: 1 are 3 processes, the launcher has started 2"),
        (SLURM | {"SLURM_NTASKS": "1"}, 2, "2 processes, SLURM starts 1 (SLURM_NTASKS); give srun --ntasks-per-node=2 --nodes=1"),
        (SLURM | {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2"}, 4, "4 processes, SLURM starts 4 (SLURM_NTASKS, 2 per node, 2 nodes)"),
        (SLURM | {"SLURM_NTASKS": "2"}, 2, "SLURM starts 2 processes by --ntasks; start them with --ntasks-per-node instead"),
        (SLURM | {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "bash"}, 2, None),
        (SLURM | {"SLURM_NTASKS": "1"}, 1, None),
        (TORCHRUN | {"WORLD_SIZE": "1"}, 1, None),
    ],
)  # fmt: skip
def test_processes_of_a_launcher_are_counted(environment, devices, said, tmp_path: Path, monkeypatch, capsys):
    """Before data or a model are made. Agreeing ones come to the next check."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def next_check(*args):
        raise InputError("they agree")

    monkeypatch.setattr(trainer, "settle_mesh", next_check)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", config("GeneratorModule", tmp_path / "run", trainer__devices=devices)])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert (said or "stepverify fit: they agree\n") in error
    assert "Traceback" not in error
