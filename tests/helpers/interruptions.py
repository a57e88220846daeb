"""Runs that are stopped or killed at a hook, go on, and come out as uninterrupted ones."""

from __future__ import annotations

import importlib
import io
import os
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import lightning
import torch

from stepverify.cli import main
from tests.helpers.processes import stepverify
from tests.helpers.runs import BACKBONE, config, scalars, weights

# 8 steps in two epochs, with dropout; validation has two batches.
RUN = {
    "data__eval_pack_tokens": 200,
    "model__init_args__backbone": BACKBONE | {"attention_dropout": 0.2},
}


class Interrupt(lightning.Callback):
    """Sends this process a signal at a hook of one optimizer step, counted from 1."""

    def __init__(self, hook: str, step: int, signal: str, rank: int = 0, size: int | None = None) -> None:
        def strike(trainer: lightning.Trainer, *args: Any, **kwargs: Any) -> None:
            if (
                trainer.global_step + (hook in ("on_before_optimizer_step", "on_train_batch_start")) == step
                and trainer.global_rank == rank
            ):
                if size is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
                else:
                    os.kill(os.getpid(), getattr(__import__("signal"), signal))

        setattr(self, hook, strike)


class KillWriter(lightning.Callback):
    """Kills this process in the thread that writes checkpoints, at its n-th call of a function, half of it done."""

    def __init__(self, function: str, call: int) -> None:
        module, _, self.name = function.rpartition(".")
        self.module, self.call = importlib.import_module(module), call

    def setup(self, *args: Any, **kwargs: Any) -> None:
        original = getattr(self.module, self.name)

        def strike(*args: Any) -> Any:
            if threading.current_thread().name != "checkpoint" or (call := self.call) < 0:
                return original(*args)
            self.call -= 1
            if call == 0:
                if self.name == "save":
                    original(args[0], whole := io.BytesIO())
                    args[1].write(whole.getvalue()[: len(whole.getvalue()) // 2])
                    args[1].flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args)

        setattr(self.module, self.name, strike)


class SlowWriter(lightning.Callback):
    """Has the thread that writes checkpoints take seconds longer."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def setup(self, *args: Any, **kwargs: Any) -> None:
        save = torch.save

        def slow(*args: Any) -> None:
            if threading.current_thread().name == "checkpoint":
                time.sleep(self.seconds)
            save(*args)

        torch.save = slow


def interrupt(hook: str, step: int, signal: str = "SIGTERM", **more: Any) -> dict[str, Any]:
    arguments = {"hook": hook, "step": step, "signal": signal} | more
    return {"class_path": "tests.helpers.interruptions.Interrupt", "init_args": arguments}


def every(steps: int, **more: Any) -> dict[str, Any]:
    """Save after so many steps, whatever share of the time that takes."""
    return {
        "class_path": "stepverify.callbacks.Checkpoints",
        "init_args": {"every_n_train_steps": steps, "max_share": 1.0} | more,
    }


def fit(root: Path, *callbacks: dict[str, Any], **changes: Any) -> None:
    """Begin :data:`RUN`, or go on with it."""
    main(
        [
            "fit",
            "--config",
            config("GeneratorModule", root, **RUN, **changes, trainer__callbacks=[*callbacks]),
            "--ckpt_path",
            "last",
        ]
    )


def fit_apart(
    root: Path, *callbacks: dict[str, Any], env: dict[str, str] | None = None, **changes: Any
) -> subprocess.CompletedProcess:
    """Begin :data:`RUN`, or go on with it, in a process of its own."""
    file = config("GeneratorModule", root, **RUN, **changes, trainer__callbacks=[*callbacks])
    return stepverify("fit", "--config", file, "--ckpt_path", "last", env=env)


def traces(root: Path) -> dict[str, list[tuple[int, float]]]:
    """Each logged value; a step that was done twice must have come out the same."""
    seen = scalars(root)
    return {tag: sorted(set(seen[tag])) for tag in ("train/loss", "train/grad_norm", "val/loss", "lr-AdamW/pg1")}


def assert_same(root: Path, whole: Path) -> None:
    assert traces(root) == traces(whole)
    one, two = weights(root), weights(whole)
    assert all(torch.equal(one[k], two[k]) for k in one)
