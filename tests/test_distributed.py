"""DDP and FSDP2 on two CPU processes, by the shipped overlays: one and the same model comes out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_ddp_equals_fsdp2(tmp_path: Path):
    """The same batches on the same ranks, the same updates: exported weights agree to 1e-6 after 4 steps."""
    load_file = pytest.importorskip("safetensors.torch").load_file
    weights = {}
    for overlay in ("ddp", "fsdp2"):
        root = tmp_path / overlay
        command = [
            sys.executable, "-m", "stepverify.cli", "fit", "--config", "lit_configs/quickstart/01_generator.yaml",
            "--config", f"lit_configs/overlays/{overlay}.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", "2",
            "--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1", "--trainer.default_root_dir", str(root),
            "--data.train.init_args.num_problems", "128", "--data.batch_size", "16", "--data.validation.init_args.num_problems", "33",
            "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment
        )
        assert done.returncode == 0, done.stderr[-2000:]
        weights[overlay] = load_file(root / "export" / "model.safetensors")
    ddp, fsdp2 = weights.values()
    assert ddp.keys() == fsdp2.keys()
    assert max((ddp[k] - fsdp2[k]).abs().max().item() for k in ddp) < 1e-6


def test_torchrun_on_two_processes(tmp_path: Path):
    """The command of the README: two processes by torchrun, each with its share; one export and one set of logs."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0", "--standalone",
        "-m", "stepverify.cli", "fit", "--config", "lit_configs/quickstart/01_generator.yaml",
        "--config", "lit_configs/overlays/ddp.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", "2",
        "--trainer.max_steps", "2", "--trainer.default_root_dir", str(tmp_path / "run"),
        "--data.train.init_args.num_problems", "64", "--data.validation.init_args.num_problems", "8",
        "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
    ]  # fmt: skip
    done = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Starting with 2 processes" in done.stderr
    assert (tmp_path / "run" / "export" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
