"""Memory and time to get training data ready, against the number of samples a problem.

    python -m tests.benchmarks.bench_data [--problems 200] [--samples 1,10,100] [--model FOLDER]

Solutions with random numbers (about 100 tokens) are written as a stage writes them, read, encoded, laid on disk and
divided into packs for one epoch, each size in a process of its own: examples in a list for comparison; the first run,
which encodes into a cache; and the second run, which finds it. Memory is what the process has of its own after that,
and what its peak grew by meanwhile, in which pages of mapped files count that all processes share. Reading is of all
examples in random order. Seconds are of all threads; on how many cores the tokenizer's part of the first run is divided
is up to RAYON_NUM_THREADS, the rest of it is the main thread's.
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
WAYS = ("list", "first run", "second run")


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


def measure(folder: Path, way: str, model: str) -> dict[str, float]:
    from stepverify.data.encode import SolutionEncoder, load_tokenizer
    from stepverify.data.packing import PrefixPacks
    from stepverify.data.prepare import encode_all
    from stepverify.readers import Solutions
    from stepverify.template import Template

    encoder, reader = SolutionEncoder(load_tokenizer(model), Template(prompt="{problem}\n")), Solutions(str(folder))
    before, own = memory("VmHWM"), memory("RssAnon")
    start, start_main = time.process_time(), time.thread_time()

    def encode(record: Solution):
        return encoder.outcome(record, [float(bool(record.correct))] * len(record.steps))

    if way == "list":
        examples = [encode(r) for r in reader.solutions()]
        sequences, groups = [e.input_ids for e in examples], [e.record.problem_id for e in examples]
    else:
        examples = encode_all(reader, encode, "train", encoder=encoder, options={}, cache=folder / "cache")
        sequences, groups = examples.sequences, examples.groups.tolist()
    encoded, encoded_main = time.process_time(), time.thread_time()
    packs = PrefixPacks(sequences, groups, 8192)(None)
    packed = time.process_time()
    found = {"grown": memory("VmHWM") - before, "own": memory("RssAnon") - own}
    order = random.Random(0).sample(range(len(examples)), len(examples))
    reading = time.process_time()
    for i in order:
        _ = examples[i]
    read = time.process_time() - reading
    return found | {
        "solutions": len(examples), "tokens": sum(map(len, sequences)), "packs": len(packs),
        "encode": encoded - start, "main": encoded_main - start_main, "pack": packed - encoded,
        "read": read / len(examples),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--samples", default="1,10,100")
    parser.add_argument("--model", default=BASE, help="folder of a tokenizer")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(Path(args.measure[0]), args.measure[1], args.model)))
        return
    print(
        "| samples a problem | solutions | tokens | way | encode s | of the main thread | pack s | read µs an example | "
        "own MiB | peak grown MiB |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for samples in map(int, args.samples.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), args.problems, samples)
            for way in WAYS:
                command = [sys.executable, "-m", "tests.benchmarks.bench_data", "--measure", folder, way]
                run = subprocess.run([*command, "--model", args.model], check=True, capture_output=True, text=True)
                found = json.loads(run.stdout.splitlines()[-1])
                print(
                    f"| {samples} | {found['solutions']:,} | {found['tokens']:,} | {way} | {found['encode']:.2f} | "
                    f"{found['main']:.2f} | {found['pack']:.2f} | {found['read'] * 1e6:.0f} | {found['own'] / 2**20:.1f} | "
                    f"{found['grown'] / 2**20:.1f} |", flush=True,
                )  # fmt: skip


if __name__ == "__main__":
    main()
