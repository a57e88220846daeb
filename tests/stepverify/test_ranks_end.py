"""A run ends with any of its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning
import pytest

from tests.helpers.processes import ROOT, stepverify
from tests.helpers.runs import config


class Strike(lightning.Callback):
    """Ends one rank in the third step, by SIGKILL or an exception; the others wait, as for NCCL, which hears of nothing."""

    def __init__(self, rank: int, how: str, file: str) -> None:
        self.rank, self.how, self.file = rank, how, Path(file)

    def on_train_start(self, trainer, pl_module) -> None:
        self.file.with_name(f"{self.file.name}-{trainer.global_rank}").write_text(str(os.getpid()))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == 2:
            if trainer.global_rank != self.rank:
                time.sleep(1000)
            self.file.with_name("struck").touch()
            if self.how == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("struck")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "how", "launcher"),
    [
        (0, "SIGKILL", ()), (0, "exception", ()), (1, "SIGKILL", ()), (1, "exception", ()),
        (1, "SIGKILL", ("torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m")),
    ],
)  # fmt: skip
def test_a_run_ends_with_any_of_its_processes(rank: int, how: str, launcher: tuple[str, ...], tmp_path: Path):
    strike = {"rank": rank, "how": how, "file": str(tmp_path / "process")}
    file = config(
        "GeneratorModule",
        tmp_path / "run",
        trainer__callbacks=[{"class_path": "tests.stepverify.test_ranks_end.Strike", "init_args": strike}],
    )
    started = time.time()
    # The errors of all processes go to one pipe, which is read until the last of them has ended.
    done = stepverify("fit", "--config", file, "--trainer.devices", "2", launcher=launcher)
    seconds = time.time() - (tmp_path / "struck").stat().st_mtime
    print(rank, how, launcher, f"{seconds:.1f} of {time.time() - started:.1f} s, code {done.returncode}")
    assert seconds < 60
    assert done.returncode != 0
    assert ("RuntimeError: struck" in done.stderr) == (how == "exception")
    if not launcher:
        assert ("has ended, so local rank 1 ends" if rank == 0 else "terminated with code") in done.stderr


def test_a_further_process_ends_with_the_main_one():
    """The main process starts one with its environment, says its number, and is killed."""
    inner = (
        "import time; from stepverify import follow; follow.GRACE_SECONDS = 0; follow.follow_main(); time.sleep(100)"
    )
    outer = (
        "import os, subprocess, sys, time; from stepverify.follow import follow_main; follow_main()\n"
        f"subprocess.Popen([sys.executable, '-c', {inner!r}], env=os.environ | {{'LOCAL_RANK': '1'}}); time.sleep(0.5); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", outer], check=False, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=20
    )
    assert done.returncode == -signal.SIGKILL
    assert "has ended, so local rank 1 ends" in done.stderr
