"""How long training waits for one checkpoint, and how much memory that takes.

Three ways on one model with AdamW's states: Lightning's own writer (through a buffer in memory, then fsync), straight to
disk, and from a copy by a thread. No training runs meanwhile.

    python -m tests.benchmarks.bench_checkpoints --model FOLDER --runs 3
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from stepverify import atomic
from stepverify.callbacks.background import BackgroundSave, snapshot
from stepverify.callbacks.files import AnyCheckpoint

WAYS = ("lightning", "straight", "thread")


def main() -> None:
    """Measure each way in a process of its own, so that peaks are its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a model; left out: a random one of 25 million parameters")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        measure(args.way, args.model)
        return
    print(
        "| way | training waits s | until on disk s | CPU s | GB | peak beyond the model GB |\n|---|---|---|---|---|---|"
    )
    for _ in range(args.runs):
        for way in WAYS:
            words = [sys.executable, "-m", "tests.benchmarks.bench_checkpoints", "--way", way]
            subprocess.run(words + (["--model", args.model] if args.model else []), check=True)


def measure(way: str, model: str | None) -> None:
    """Save once, after one step."""
    if model:
        from transformers import AutoModelForCausalLM

        weights = list(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).parameters())
    else:
        weights = [torch.nn.Parameter(torch.randn(1000, 1000)) for _ in range(25)]
    optimizer = torch.optim.AdamW(weights)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    checkpoint = {"state_dict": dict(enumerate(weights)), "optimizer_states": [optimizer.state_dict()]}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory(dir=".") as folder:
        draft, target = Path(folder) / ".draft", Path(folder) / "step=1.ckpt"
        start, cpu = time.monotonic(), time.process_time()
        if way == "thread":
            save, taken = BackgroundSave(), snapshot(checkpoint)
            save.start(lambda: AnyCheckpoint().save_checkpoint(taken, draft), lambda: atomic.publish(draft, target))
            waits = time.monotonic() - start
            assert save.finish() is None
        else:
            (TorchCheckpointIO() if way == "lightning" else AnyCheckpoint()).save_checkpoint(checkpoint, draft)
            atomic.publish(draft, target)
            waits = time.monotonic() - start
        total, cpu = time.monotonic() - start, time.process_time() - cpu
        size = target.stat().st_size
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(f"| {way} | {waits:.2f} | {total:.2f} | {cpu:.2f} | {size / 1e9:.2f} | {peak / 1e9:.2f} |", flush=True)
    os.sync()


if __name__ == "__main__":
    main()
