"""Speed and memory of training and scoring: this project, TRL, and a plain trainer, side by side.

    python -m tests.benchmarks.bench_train [--model DIR] [--data FOLDER] [--cache FOLDER] [--tasks prm,sft,score]
    python -m tests.benchmarks.bench_train --memory | --scaling | --profile
    python -m tests.benchmarks.bench_train --device cuda --smollm2 --tasks prm --problems 192 --steps 12

Without --model and --data a tiny random model, or with --smollm2 one in the shape of SmolLM2-135M, and synthetic
problems are made. TRL takes part where it is installed, or where --cache (or STEPVERIFY_BENCH_CACHE) names a folder
outside the repository, in which an environment with it is made once.

- Every run is a process of its own; contestants take turns, --runs times; figures are medians.
- All read the same ids in fp32, AdamW (fused) at one learning rate, gradients clipped to 1, and divide one epoch over
  the same problems into as many steps. Ours makes packs of a number of tokens, so its steps differ in solutions.
- Time runs from the end of the first step, which is the warm-up, to the end of the last one. Solutions a second are
  tokens a second (of solutions, each counted in full, no padding) over the mean length of all solutions, so that it
  does not matter which of them the first step had. The same over the CPU seconds of the process is what other work on
  the machine disturbs least; the share of the ceiling is of CPU seconds too. Memory is the peak of the resident size of the process.
- On a GPU (--device cuda) all train under autocast to bf16. The device is waited for after each step, ratios are of
  wall time, memory is the peak of what the device's tensors take, and MFU is the share of the measured bf16 ceiling
  (a product of 8192 × 8192 matrices) that the operations below are.
- Ceiling: a product of 2048 × 2048 matrices, measured between the runs. Share of it, with P parameters in matrices of
  the layers, N positions computed (padding counted, shared prefixes once), T the length of each causal call of the
  attention (a row; a call without a mask counts its products twice), D heads × their width, H hidden width and O
  logits computed: 3 · 2 · (P·N + layers·D·ΣT² + H·O) operations in training, a third of it in scoring. The attention's
  square is halved (causal) and doubled (two products), and operations of the backward pass are twice those of the
  forward one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from stepverify.records import Solution
from tests.benchmarks.peers import setup, work

Result = dict[str, Any]
# Contestant → module and options. The first one of a task is the measure of the others.
CONTESTANTS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "prm": {
        "plain": ("plain", {}),
        "TRL PRMTrainer": ("trl_trainers", {}),
        "TRL PRMTrainer, defaults": ("trl_trainers", {"checkpointing": True, "random_order": True}),
        "stepverify": ("ours", {}),
        "stepverify, pointwise": ("ours", {"backbone": {"gradient_checkpointing": "pointwise"}}),
    },
    "sft": {
        "plain": ("plain", {}),
        "TRL SFTTrainer, packing": ("trl_trainers", {"packing": 1024}),
        "TRL SFTTrainer, padded": ("trl_trainers", {}),
        "stepverify": ("ours", {}),
    },
    "score": {"plain": ("plain", {}), "stepverify": ("ours", {})},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a causal language model; a tiny random one if left out")
    parser.add_argument("--data", help="folder of solutions (stepverify/records.py); synthetic ones if left out")
    parser.add_argument("--cache", default=os.environ.get("STEPVERIFY_BENCH_CACHE"), help="where to install TRL")
    parser.add_argument("--tasks", default="prm,sft,score")
    parser.add_argument("--only", nargs="+", help="contestants, as the tables name them; the first one is the measure")
    parser.add_argument("--problems", type=int, default=4)
    parser.add_argument("--samples", type=int, default=16, help="solutions a problem")
    parser.add_argument("--longest", type=int, help="leave longer solutions of --data out; in tokens, tags included")
    parser.add_argument("--steps", type=int, help="of the epoch; one problem a step if left out")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--vocabulary", type=int, default=32768, help="of the tiny model")
    parser.add_argument("--width", type=int, default=128, help="of the tiny model")
    parser.add_argument("--layers", type=int, default=3, help="of the tiny model")
    parser.add_argument("--smollm2", action="store_true", help="a random model in the shape of SmolLM2-135M")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--memory", action="store_true", help="memory against pack, vocabulary and samples instead")
    parser.add_argument("--scaling", action="store_true", help="one and two processes of DDP instead")
    parser.add_argument("--profile", action="store_true", help="the operators of our training step instead")
    parser.add_argument("--output", type=Path, help="file for the raw figures, a JSON line a run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Bench(arguments, Path(folder)).run()


class Bench:
    """One call of the program."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments, self.folder = arguments, folder
        self.steps = arguments.steps or arguments.problems
        self.trl = setup.trl_python(arguments.cache)

    def run(self) -> None:
        if self.arguments.memory:
            return self.memory()
        model = self.arguments.model or self.model(self.arguments.vocabulary)
        data = self.data(self.arguments.samples)
        print(
            f"{Path(model).name}, {self.arguments.problems} problems × {self.arguments.samples} solutions in "
            f"{self.steps} steps, {'fp32' if self.arguments.device == 'cpu' else 'bf16-mixed'}, {self.arguments.threads} threads, medians of {self.arguments.runs} runs\n"
        )
        tasks = self.arguments.tasks.split(",")
        if self.arguments.scaling:
            return self.scaling(model, data, tasks[0])
        if self.arguments.profile:
            return self.profile(model, data, tasks[0])
        for task in tasks:
            self.compare(task, model, data)

    # ── parts ─────────────────────────────────────────────────────────────────────────────────────

    def model(self, vocabulary: int, width: int | None = None, layers: int | None = None) -> str:
        folder = self.folder / f"tiny-{vocabulary}"
        if self.arguments.smollm2 and not folder.exists():
            setup.code(f"setup.tiny_model({str(folder)!r}, **setup.SMOLLM2)")
        if not folder.exists():
            shape = (vocabulary, width or self.arguments.width, layers or self.arguments.layers)
            setup.code(f"setup.tiny_model({str(folder)!r}, *{shape})")
        return str(folder)

    def data(self, samples: int) -> str:
        problems, path = self.arguments.problems, self.arguments.data
        chosen = self.chosen(path, problems, samples) if path else list(setup.synthetic(problems, samples))
        return setup.write(self.folder / f"data-{samples}", chosen)

    def chosen(self, path: str, problems: int, samples: int) -> list[Solution]:
        return setup.choose(path, problems, samples, self.arguments.model or "", self.arguments.longest)

    def measure(self, name: str, module: str, spec: work.Spec) -> Result:
        """One run in a process of its own."""
        python = self.trl if module == "trl_trainers" else sys.executable
        assert python is not None
        command = [python, "-m", f"tests.benchmarks.peers.{module}", spec.dump()]
        result = work.parse(setup.call(command, self.arguments.threads, spec.device))
        result["rate"], result["cpu_rate"] = (
            result["tokens"] / result[time] / result["mean_length"] for time in ("seconds", "cpu")
        )
        if self.arguments.output:
            with self.arguments.output.open("a") as file:
                file.write(json.dumps({"contestant": name, "task": spec.task, **result}) + "\n")
        rates = f"{result['rate']:.3f} solutions/s, {result['cpu_rate']:.3f} a CPU second"
        print(f"{spec.task} {name}: {rates}", file=sys.stderr, flush=True)
        return result

    def compare(self, task: str, model: str, data: str) -> None:
        """Contestants in turn, and the table of their medians."""
        contestants = {n: c for n, c in CONTESTANTS[task].items() if self.trl or c[0] != "trl_trainers"}
        if self.arguments.only:
            contestants = {name: contestants[name] for name in self.arguments.only}
        results: dict[str, list[Result]] = {name: [] for name in contestants}
        ceilings = []
        for _ in range(self.arguments.runs):
            ceilings.append(self.ceiling())
            for name, (module, options) in contestants.items():
                spec = work.Spec(task, model, data, self.steps, options, self.arguments.device)
                results[name].append(self.measure(name, module, spec))
        if self.arguments.device == "cuda":
            return gpu_table(task, results, median(c["bfloat16"] for c in ceilings))
        fp32, bf16 = (median(c[k] for c in ceilings) for k in ("float32", "bfloat16"))
        print(f"{task}: ceiling {fp32 / 1e9:.0f} GFLOP/s in fp32, {bf16 / 1e9:.0f} in bf16\n")
        header(
            "", "solutions/s", "ratio", "solutions/CPU s", "min – max", "ratio", "computed/full tokens",
            "share of ceiling", "peak GiB", "ratio",
        )  # fmt: skip
        base = next(iter(results.values()))
        for name, runs in results.items():
            rates, peak = [r["cpu_rate"] for r in runs], mid(runs, "peak")
            row(
                name, f"{mid(runs, 'rate'):.2f}", f"{mid(runs, 'rate') / mid(base, 'rate'):.2f}",
                f"{median(rates):.2f}", f"{min(rates):.2f} – {max(rates):.2f}",
                f"{median(rates) / mid(base, 'cpu_rate'):.2f}", f"{runs[0]['positions'] / runs[0]['tokens']:.2f}",
                f"{median(r['flops'] / r['cpu'] for r in runs) / fp32:.0%}", f"{peak / 2**30:.2f}",
                f"{peak / mid(base, 'peak'):.2f}",
            )  # fmt: skip
        print(flush=True)

    def ceiling(self) -> dict[str, float]:
        kind, device = ("cuda_ceiling" if self.arguments.device == "cuda" else "ceiling"), self.arguments.device
        code = f"import json; print(json.dumps(setup.{kind}()))"
        return setup.parsed(setup.code(code, self.arguments.threads, device))

    # ── the other tables ──────────────────────────────────────────────────────────────────────────

    def memory(self) -> None:
        """Peak memory of two steps; tiny models, one varied thing at a time. As many solutions a step for both."""
        print(
            "MiB at the peak, and of these beyond weights, gradients and Adam's two states\n\n"
            "Random Llama, width 256, 4 layers; synthetic problems\n"
        )
        header("pack tokens", "vocabulary", "samples", "solutions/step", "PRM", "generator", "plain PRM")
        cases = [(p, 8192, 16) for p in (1024, 2048, 4096, 8192)]
        cases += [(1024, v, 16) for v in (2048, 32768, 151936)] + [(2048, 8192, s) for s in (1, 4, 64)]
        for pack, vocabulary, samples in cases:
            self.arguments.problems = 1024 // samples
            model, data = self.model(vocabulary, 256, 4), self.data(samples)
            ours = {"pack_tokens": pack, "batches": 2}
            prm = self.measure("stepverify", "ours", work.Spec("prm", model, data, 1, ours))
            sft = self.measure("stepverify", "ours", work.Spec("sft", model, data, 1, ours))
            plain = work.Spec("prm", model, data, max(2, round(1024 / prm["per_step"])), {"batches": 2})
            figures = [both(r) for r in (prm, sft, self.measure("plain", "plain", plain))]
            row(str(pack), str(vocabulary), str(samples), f"{prm['per_step']:.0f}", *figures)

    def scaling(self, model: str, data: str, task: str) -> None:
        """DDP on one and two processes, each with as large packs."""
        runs: dict[int, list[Result]] = {1: [], 2: []}
        for _ in range(self.arguments.runs):
            for devices, results in runs.items():
                options = {"devices": devices}
                results.append(self.measure(f"{devices}", "ours", work.Spec(task, model, data, self.steps, options)))
        header("processes", "tokens/s", "min – max", "solutions/s", "ratio")
        for devices, results in runs.items():
            rates = [r["tokens"] / r["seconds"] for r in results]
            span = f"{min(rates):.0f} – {max(rates):.0f}"
            ratio = mid(results, "rate") / mid(runs[1], "rate")
            row(str(devices), f"{median(rates):.0f}", span, f"{mid(results, 'rate'):.2f}", f"{ratio:.2f}")

    def profile(self, model: str, data: str, task: str) -> None:
        """Where the time of our step goes."""
        result = self.measure("stepverify", "ours", work.Spec(task, model, data, self.steps, {"profile": True}))
        header("operator", "self CPU time", "calls")
        for name, share, calls in result["operators"]:
            row(f"`{name}`", f"{share:.1%}", str(calls))


def gpu_table(task: str, results: dict[str, list[Result]], ceiling: float) -> None:
    """Medians of wall time, and peaks of the device's memory."""
    print(f"{task}: ceiling {ceiling / 1e12:.0f} TFLOP/s in bf16\n")
    header("", "solutions/s", "min – max", "ratio", "tokens/s", "computed/full tokens", "MFU", "peak GiB", "ratio")
    base = next(iter(results.values()))
    for name, runs in results.items():
        rates, peak = [r["rate"] for r in runs], mid(runs, "peak")
        row(
            name, f"{median(rates):.0f}", f"{min(rates):.0f} – {max(rates):.0f}",
            f"{median(rates) / mid(base, 'rate'):.2f}", f"{median(r['tokens'] / r['seconds'] for r in runs):.0f}",
            f"{runs[0]['positions'] / runs[0]['tokens']:.2f}",
            f"{median(r['flops'] / r['seconds'] for r in runs) / ceiling:.1%}",
            f"{peak / 2**30:.2f}", f"{peak / mid(base, 'peak'):.2f}",
        )  # fmt: skip
    print(flush=True)


def mid(results: list[Result], key: str) -> float:
    return median(r[key] for r in results)


def both(result: Result) -> str:
    """Peak, and what is beyond weights, gradients and optimizer states: three times the weights come on top."""
    beyond = result["peak"] - result["loaded"] - 12 * result["parameters"]
    return f"{result['peak'] / 2**20:.0f} ({beyond / 2**20:.0f})"


def header(*cells: str) -> None:
    row(*cells)
    print("|---" * len(cells) + "|")


def row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
