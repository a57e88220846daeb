"""Pairs a second of the grader with its pool warm, and of Math-Verify in one process; agreement of both with labels.

    python -m tests.benchmarks.bench_grade [--data FOLDER] [--runs 5] [--workers 2]

--data is a folder with files of `{gold, pred, expected}`: `processbench_boxed_answer_pairs.jsonl.gz`,
`answer_equivalence_cases.jsonl.gz` and `answer_pairs_probed.jsonl.gz`; without it, a few hundred made-up pairs are graded. Every run is a process of its own, warmed by
other pairs, the contestants in turn. Math-Verify gets answers as they are, and between dollar signs as it asks for.
CPU seconds are those of all processes while grading. Agreement counts a comparison without a verdict as not equal.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

FILES = ("processbench_boxed_answer_pairs", "answer_equivalence_cases", "answer_pairs_probed")
WARMING = [(f"x^{n} + {n}y", f"{n}y + x^{n}") for n in range(2, 34)]
Grade = Callable[[list[tuple[str, str]]], list[bool | None]]


def grader(workers: int) -> Grade:
    from stepverify.answers import Grader

    return Grader(num_workers=workers, time_limit=20).grade


def math_verify(workers: int) -> Grade:
    from math_verify import parse, verify

    return lambda pairs: [verify(parse(gold), parse(predicted)) for gold, predicted in pairs]


def math_verify_dollars(workers: int) -> Grade:
    grade = math_verify(workers)
    return lambda pairs: grade([tuple(t if "$" in t else f"${t}$" for t in pair) for pair in pairs])


CONTESTANTS = {
    "stepverify": grader,
    "Math-Verify, answers as they are": math_verify,
    "Math-Verify, between dollar signs": math_verify_dollars,
}


def measure(contestant: str, file: str, workers: int) -> dict[str, float]:
    """Grade the pairs of a file once."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    grade = CONTESTANTS[contestant](workers)
    grade(WARMING)
    cpu, start = cpu_seconds(), time.perf_counter()
    verdicts = grade([(row["gold"], row["pred"]) for row in rows])
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    agreed = sum(bool(verdict) == row["expected"] for row, verdict in zip(rows, verdicts, strict=True))
    return {"pairs": len(rows), "seconds": seconds, "cpu": cpu, "agreement": agreed / len(rows)}


def cpu_seconds() -> float:
    """User and system time of this process and its workers so far."""
    ticks = 0
    for pid in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def made_up(folder: Path) -> None:
    """Pairs of every kind, half of them equal."""
    for name, numbers in zip(FILES, (range(1, 100), range(100, 120), range(120, 140)), strict=True):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            for n in numbers:
                for gold, predicted in (
                    (f"{n}", rf"\${n}.00"), (rf"\frac{{{n}}}{{7}}", f"{n}/7"), (f"({n}, 2]", f"({n},2]"),
                    (rf"{n}\sqrt{{2}}", rf"\frac{{{2 * n}}}{{\sqrt{{2}}}}"), (f"x^2 - {n * n}", f"(x-{n})(x+{n})"),
                ):  # fmt: skip
                    for incorrect in (False, True):
                        row = {
                            "gold": gold,
                            "pred": f"{predicted} + 1" if incorrect else predicted,
                            "expected": not incorrect,
                        }
                        file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the two files")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes of the grader")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure, arguments.workers)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.data or Path(temporary)
        if not arguments.data:
            made_up(folder)
        for name in FILES:
            compare(folder / f"{name}.jsonl.gz", arguments.runs, arguments.workers)


def compare(file: Path, runs: int, workers: int) -> None:
    """Run all contestants in turn and print a row each: medians, and the range of the rate."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for _ in range(runs):
        for name, results in found.items():
            command = [sys.executable, "-m", "tests.benchmarks.bench_grade", "--workers", str(workers)]
            run = subprocess.run([*command, "--measure", name, str(file)], check=True, capture_output=True, text=True)
            results.append(json.loads(run.stdout.splitlines()[-1]))
    print(f"\n| {file.name.split('.')[0]} | pairs/s | min – max | CPU ms a pair | agreement |\n|---|---|---|---|---|")
    for name, results in found.items():
        rates = [r["pairs"] / r["seconds"] for r in results]
        cpu = statistics.median(1000 * r["cpu"] / r["pairs"] for r in results)
        print(
            f"| {name} | {statistics.median(rates):.0f} | {min(rates):.0f} – {max(rates):.0f} | {cpu:.1f} | "
            f"{results[0]['agreement']:.1%} |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
