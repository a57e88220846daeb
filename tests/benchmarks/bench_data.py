"""Memory and time to get training data ready, against the number of samples a problem.

    python -m tests.benchmarks.bench_data [--problems 200] [--samples 1,10,100]

Solutions with random numbers (about 100 tokens) are written as a stage writes them, read, encoded, laid on disk and
divided into packs for one epoch, each size in a process of its own. Memory is what the process's peak grew by
meanwhile. For comparison: the same examples in a list.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stepverify.jsonl import write_records
from stepverify.records import Solution
from tests.benchmarks.peers.work import memory

BASE = "lit_configs/quickstart/base"


def write(folder: Path, problems: int, samples: int) -> None:
    """Chains of sums without end, so that no two samples share more than the first step."""
    rng = random.Random(0)

    def steps() -> list[str]:
        return [
            f"{rng.choice('abcdefg')} = {rng.randrange(7)} + {rng.randrange(7)} = {rng.randrange(7)}" for _ in range(11)
        ]

    write_records(folder / "part-00000.jsonl", (
        Solution(
            id=f"p/{p}#{s}", problem_id=f"p/{p}", problem=f"a = {p % 7} ; a ?", steps=steps(), finish="stop",
            correct=rng.random() < 0.5,
        )
        for p in range(problems) for s in range(samples)
    ))  # fmt: skip


def measure(folder: str, in_memory: bool) -> dict[str, float]:
    from stepverify.data.encode import SolutionEncoder, load_tokenizer
    from stepverify.data.packing import PrefixPacks
    from stepverify.data.prepare import encode_all
    from stepverify.readers import Solutions
    from stepverify.template import Template

    encoder = SolutionEncoder(load_tokenizer(BASE), Template(prompt="{problem}\n"))
    before, start = memory("VmHWM"), time.process_time()

    def encode(record: Solution):
        return encoder.outcome(record, [float(bool(record.correct))] * len(record.steps))

    if in_memory:
        examples = [encode(r) for r in Solutions(folder).solutions()]
        sequences, groups = [e.input_ids for e in examples], [e.record.problem_id for e in examples]
    else:
        examples = encode_all(Solutions(folder), encode, "train")
        sequences, groups = examples.sequences, examples.groups.tolist()
    encoded = time.process_time()
    packs = PrefixPacks(sequences, groups, 8192)(None)
    return {
        "solutions": len(examples), "tokens": sum(len(e.input_ids) for e in examples), "packs": len(packs),
        "encode": encoded - start, "pack": time.process_time() - encoded, "grown": memory("VmHWM") - before,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--samples", default="1,10,100")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], args.measure[1] == "list")))
        return
    print(
        "| samples a problem | solutions | tokens | kept | encode s | pack s | memory grown MiB |\n|---|---|---|---|---|---|---|"
    )
    for samples in map(int, args.samples.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), args.problems, samples)
            for kept in ("list", "disk"):
                command = [sys.executable, "-m", "tests.benchmarks.bench_data", "--measure", folder, kept]
                run = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(run.stdout.splitlines()[-1])
                print(
                    f"| {samples} | {found['solutions']:,} | {found['tokens']:,} | {kept} | {found['encode']:.1f} | "
                    f"{found['pack']:.1f} | {found['grown'] / 2**20:.0f} |", flush=True,
                )  # fmt: skip


if __name__ == "__main__":
    main()
