"""Peak memory of `sampling label`, `score`, `rank` and `report` by the number of solutions.

    python -m tests.benchmarks.bench_memory [--solutions 10000 1000000] [--samples 16] [--keep FOLDER]

Short synthetic solutions of three steps, 16 of each problem, and a scorer without a model. Each stage runs in a process
of its own; memory is the largest resident size of that process, without the grader's worker processes. A second line of
`label` and `score` merges four shards. Imports alone are measured too: the rest is what grows.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sampling.scorers import Scorer

SHARDS = 4
_LABEL = "from sampling.stages.label import label as run"
_SCORE = "from sampling.stages.score import score as run\nfrom tests.benchmarks.bench_memory import Instant"
STAGES = {
    "label": (_LABEL, "run({made}, {out})"),
    "score": (_SCORE, "run({label}, {out}, {{'v': Instant()}})"),
    "rank": ("from sampling.stages.rank import rank as run", "run({score}, {out})"),
    "report": ("from sampling.stages.report import report as run", "run({rank}, output={out}, scores={score})"),
}


class Instant(Scorer):
    """Values that need no model."""

    objective = "process"

    async def score(self, solutions):
        return [[(len(s.id) * 7 + i) % 10 / 10 for i in range(len(s.steps))] for s in solutions]

    def identity(self):
        return {"scorer": "instant"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--solutions", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--samples", type=int, default=16, help="solutions of a problem")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=[*STAGES])
    parser.add_argument("--merge", action="store_true", help="also run label and score in four shards, and merge these")
    parser.add_argument("--keep", type=Path, help="folder for the data; a temporary one if left out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for size in arguments.solutions:
            folder = (arguments.keep or Path(temporary)) / str(size)
            if not (folder / "made").exists():
                write(folder / "made", size, arguments.samples)
            for name in arguments.stages:
                print(f"{size:,} solutions: {name}: {measure(folder, name)}", flush=True)
                if arguments.merge and name in ("label", "score"):
                    for number in range(1, SHARDS + 1):
                        measure(folder, name, f"{name}-shards/{number}", shard=f"{number}/{SHARDS}")
                    said = measure(folder, name, f"{name}-merged", reuse_from=[str(folder / f"{name}-shards" / "*")])
                    print(f"{size:,} solutions: {name}, merging {SHARDS} shards: {said}", flush=True)


def measure(folder: Path, name: str, output: str = "", **options: object) -> str:
    """Run a stage in a new interpreter; say what it took."""
    imports, call = STAGES[name]
    paths = {key: f"Path({str(folder / key)!r})" for key in ("made", *STAGES)}
    given = ", ".join(f"{key}={value!r}" for key, value in options.items())
    code = (
        f"from pathlib import Path\nimport resource\n{imports}\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\nbefore = peak()\n"
        + call.format(out=f"Path({str(folder / (output or name))!r})", **paths)[:-1]
        + f"{', ' * bool(given)}{given})\nprint()\nprint(before, peak())"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    before, peak = map(float, done.stdout.split()[-2:])
    return f"{peak:.1f} MiB, {before:.1f} after its imports; {time.perf_counter() - start:.0f} s"


def write(folder: Path, size: int, samples: int, seed: int = 0) -> None:
    """Write solutions of three steps; every other one is correct on average."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    with (folder / "part-00000.jsonl").open("w") as file:
        for i in range(size):
            problem, answer = f"bench/{i // samples}", i // samples % 1000
            found = answer + rng.choice((0, 0, 1, 2))
            steps = [f"First {rng.randrange(999)} eggs.", f"Then {rng.randrange(999)} more.", f"#### {found}"]
            record = {
                "id": f"{problem}#{i % samples}", "problem_id": problem, "problem": f"How many eggs does hen {problem} lay?",
                "answer": str(answer), "steps": steps, "finish": "stop", "generator": "bench",
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
