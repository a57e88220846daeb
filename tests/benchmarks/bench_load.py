"""Memory of each process while a model is loaded, and while it is exported.

A generator of 0.5 B parameters is trained for two steps by two processes with FSDP2 and with DDP, and by one. Peaks are
those of resident memory since the stage began, beyond what the process held before the model was loaded: libraries and
data. The losses and a digest of the exported weights stand beside them, to be compared with another version's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning

ROOT = Path(__file__).parents[2]
KINDS = {"fsdp2": 2, "ddp": 2, "single": 1}
MIB = 2**20


class Memory(lightning.Callback):
    """Notes a rank's peaks and losses in a file of its own."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.seen: dict[str, Any] = {"losses": []}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Before the model is loaded."""
        self.seen["before"] = resident("VmRSS")
        reset()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """After it is."""
        local = [p.to_local() if hasattr(p, "to_local") else p for p in pl_module.parameters()]
        self.seen |= {
            "loading": resident("VmHWM"), "loaded": resident("VmRSS"), "held": sum(p.nbytes for p in local),
            "largest": max(p.numel() * p.element_size() for p in pl_module.parameters()),
        }  # fmt: skip
        self.write(trainer)
        print(f"rank {trainer.global_rank}: {self.seen}", file=sys.stderr, flush=True)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep the loss as it is, to the last bit."""
        self.seen["losses"].append(outputs["loss"].item().hex())

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Before the export: what the optimizer held is no part of it."""
        pl_module.zero_grad()
        self.seen["trained"] = resident("VmRSS")
        reset()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """After it."""
        self.seen["exporting"] = resident("VmHWM")
        self.write(trainer)

    def write(self, trainer: Any) -> None:
        """Keep what is known so far."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"rank-{trainer.global_rank}.json").write_text(json.dumps(self.seen))


def resident(kind: str) -> int:
    """Bytes of resident memory: ``VmRSS`` now, ``VmHWM`` at its highest."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind)]
    return int(line.split()[1]) * 1024


def reset() -> None:
    """Have the highest be that from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def write_model(folder: Path) -> Path:
    """Write an untrained model of 494 M parameters, as Qwen2.5-0.5B is built, in bfloat16 and several files."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    base = str(ROOT / "lit_configs" / "quickstart" / "base")
    config = AutoConfig.from_pretrained(
        base, vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, tie_word_embeddings=True, layer_types=None, max_window_layers=24,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder, max_shard_size="300MB")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def fit(kind: str, model: Path, folder: Path, checkout: Path, steps: int) -> list[dict[str, Any]]:
    """Train for a few steps; what each rank has noted, and a digest of the export."""
    root, notes = folder / kind, folder / f"{kind}-notes"
    callbacks = [{"class_path": "bench_load.Memory", "init_args": {"folder": str(notes)}}]
    settings = {
        "seed_everything": 1,
        "model": {
            "class_path": "stepverify.modules.GeneratorModule",
            "init_args": {
                "backbone": {"path": str(model)},
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e-3}},
            },
        },
        "data": {
            "train": {"class_path": "stepverify.readers.Synthetic", "init_args": {"split": "train", "num_problems": 8}},
            "batch_size": 2,
        },
        "trainer": {
            "default_root_dir": str(root), "max_steps": steps, "accelerator": "cpu", "devices": KINDS[kind], "logger": False,
            "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False,
            "callbacks": callbacks,
        },
    }  # fmt: skip
    (folder / f"{kind}.json").write_text(json.dumps(settings))
    overlay = [] if kind == "single" else ["--config", f"lit_configs/overlays/{kind}.yaml", "--trainer.devices", "2"]
    command = [sys.executable, "-m", "stepverify.cli", "fit", "--config", str(folder / f"{kind}.json"), *overlay]
    path = os.pathsep.join([str(checkout), str(Path(__file__).parent)])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, check=True, cwd=checkout, env=environment)
    digest = digest_of(root / "export")
    found = [json.loads(file.read_text()) for file in sorted(notes.glob("rank-*.json"))]
    return [rank | {"kind": kind, "rank": i, "digest": digest} for i, rank in enumerate(found)]


def digest_of(export: Path) -> str:
    """Eight hexadecimal digits of names and bytes of all weights, in whatever files they lie."""
    import torch
    from safetensors import safe_open

    found, where = hashlib.sha256(), {}
    for file in export.glob("model*.safetensors"):
        with safe_open(file, framework="pt") as stored:
            where |= dict.fromkeys(stored.keys(), file)
    for name in sorted(where):
        with safe_open(where[name], framework="pt") as stored:
            found.update(name.encode() + stored.get_tensor(name).contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:8]


def main() -> None:
    """Run the kinds one after the other, and print a row for each rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model folder; by default an untrained one is written")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--steps", type=int, default=2, help="of training; 0 loads and exports alone")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="of the version that is measured")
    args = parser.parse_args()
    print("| | rank | parameters held, MiB | largest, MiB | loading, peak MiB | loaded, MiB | peak, of the aim | "
          "exporting, peak MiB | losses | weights |")  # fmt: skip
    print("|" + "---|" * 10, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or write_model(Path(folder) / "model")
        for kind in args.kinds:
            for seen in fit(kind, model.resolve(), Path(folder), args.checkout.resolve(), args.steps):
                before = seen["before"]
                loading, loaded, exporting = ((seen[k] - before) / MIB for k in ("loading", "loaded", "exporting"))
                held, largest = seen["held"] / MIB, seen["largest"] / MIB
                losses = hashlib.sha256(" ".join(seen["losses"]).encode()).hexdigest()[:8]
                print(f"| {kind} | {seen['rank']} | {held:,.0f} | {largest:,.0f} | {loading:,.0f} | {loaded:,.0f} | "
                      f"{loading / (1.3 * held + largest):.2f} | {exporting:,.0f} | {losses} | {seen['digest']} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
