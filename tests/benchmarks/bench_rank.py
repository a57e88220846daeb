"""Seconds and memory of `sampling rank` and `sampling report` on a GSM8K-sized test set.

    python -m tests.benchmarks.bench_rank [--problems 1319] [--samples 100] [--keep FOLDER]

Synthetic samples: each problem has its own probability to be solved, each verifier sees correct and incorrect through
noise, and the process reward model likes long solutions a little. One sample in ten carries step labels.
Each stage runs in a process of its own; memory is the largest resident size of that process alone.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=1319)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="folder for the data and the report; a temporary one if left out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        scored = folder / "scored"
        if not scored.exists():
            generate(scored, arguments.problems, arguments.samples)
        size = sum(path.stat().st_size for path in scored.iterdir()) / 1e6
        print(f"{arguments.problems} problems × {arguments.samples} samples, {size:.0f} MB")
        rank = f"from sampling.stages.rank import rank; rank(Path({str(scored)!r}), Path({str(folder / 'ranked')!r}))"
        report = (
            f"from sampling.stages.report import report; report(Path({str(folder / 'ranked')!r}), "
            f"output=Path({str(folder / 'report')!r}), scores=Path({str(scored)!r}))"
        )
        for name, code in (("rank", rank), ("report", report)):
            print(f"{name}: {measure(code)}")


def measure(code: str) -> str:
    """Run code in a new interpreter; say what it took."""
    code = "from pathlib import Path\nimport resource\n" + code
    code += "\nprint('\\n', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    start, before = time.perf_counter(), _cpu()
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, cpu = time.perf_counter() - start, _cpu() - before
    return f"{seconds:.1f} s, {cpu:.1f} s of CPU with child processes, {int(done.stdout.split()[-1]) / 1024:.0f} MiB"


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def generate(folder: Path, num_problems: int, num_samples: int, seed: int = 0) -> None:
    """Write scored solutions: GSM8K-like lengths, 2 to 8 steps and about 120 tokens."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    with (folder / "part-00000.jsonl").open("w") as file:
        for p in range(num_problems):
            ability, answer = rng.betavariate(0.7, 0.9), rng.randrange(2000)
            for s in range(num_samples):
                file.write(json.dumps(sample(rng, f"bench/{p}", s, ability, answer)) + "\n")


def sample(rng: random.Random, problem_id: str, index: int, ability: float, answer: int) -> dict:
    num_steps = min(max(round(rng.gauss(5, 1.5)), 2), 8)
    correct = rng.random() < ability
    predicted = answer if correct else answer + rng.choice((-10, -2, -1, 1, 1, 1, 2, 5, 10, rng.randrange(-500, 500)))
    first_error = num_steps if correct else rng.randrange(num_steps)
    prm = [_value(rng, 1.6 if i < first_error else -0.7) for i in range(num_steps)]
    record = {
        "id": f"{problem_id}#{index}", "problem_id": problem_id, "problem": "A baker has loaves of bread. " * 8,
        "steps": ["She sells 3 * 4 = <<3*4=12>>12 loaves on Monday and then some more of them."] * num_steps,
        "answer": str(answer), "token_ids": [rng.randrange(151_000) for _ in range(24 * num_steps)], "finish": "stop",
        "seed": rng.randrange(1 << 31), "generator": "bench",
        "predicted": None if rng.random() < 0.02 else str(predicted), "correct": correct,
        "scores": {"orm": [_value(rng, 0.9 if correct else -1.1)], "prm": prm},
    }  # fmt: skip
    record["correct"] = correct and record["predicted"] is not None
    if index % 10 == 0:
        record["step_labels"] = [
            {"num_correct": rng.randint(1, 8) if i < first_error else 0, "num_rollouts": 8} for i in range(num_steps)
        ]
    return record


def _value(rng: random.Random, logit: float) -> float:
    return round(1 / (1 + 2.718281828 ** -(logit + rng.gauss(0, 1.2))), 6)


if __name__ == "__main__":
    main()
