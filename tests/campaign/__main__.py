"""Run the campaign: ``python -m tests.campaign [--size 0.2] [--only records ...]``; ``make campaign`` does.

Every trial is written to ``runs/campaign/NAME.jsonl`` when it ends; a campaign that was stopped goes on with those that
are missing, and ``--again`` repeats those that failed. At the end the table in README.md is written from all results.
A list of trials is a module beside this one with ``NAME`` and ``trials(folder, size, seed)``, named in :data:`MODULES`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from tests.campaign import kills, stages
from tests.campaign.trial import SURVIVED, Trial

MODULES = ("records", "commands", "kills", "writers", "answers", "servers")
README = Path(__file__).with_name("README.md")
_MARKS = ("<!-- table -->", "<!-- /table -->")
_COLUMNS = {
    "tracebacks": ("traceback",), "losses": ("lost", "changed"), "doublings": ("doubled",), "hangs": ("hang",),
    "other faults": ("unnamed", "unreadable", "silent"),
}  # fmt: skip


def main() -> int:
    """Run what is asked for; return 1 where a trial found a fault."""
    options = _options()
    options.results.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="stepverify-campaign-", dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        folder.chmod(0o755)  # some trials are another user's
        kills.CHOSEN = options.stages
        modules = [importlib.import_module(f"tests.campaign.{name}") for name in options.only]
        if modules and not options.cold:
            stages.warm_up(folder)
        for module in modules:
            run(module, folder, options)
    failed = write_table(options.results, options.readme)
    print(f"{options.readme}: {failed or 'no'} trials found faults")
    return int(failed > 0)


def run(module: Any, folder: Path, options: argparse.Namespace) -> None:
    """Run the trials of a module that have no result yet."""
    path = options.results / f"{module.NAME}.jsonl"
    known = {line["key"]: line for line in read(path) if line["outcome"] in SURVIVED or not options.again}
    path.write_text("".join(json.dumps(line) + "\n" for line in known.values()))  # without a line that a kill tore
    start, counts = time.monotonic(), Counter[str]()
    with path.open("a") as file:
        trials = islice(module.trials(folder, options.size, options.seed), 0, None, options.every)
        for number, trial in enumerate(trial for trial in trials if trial.key not in known):
            if options.minutes and time.monotonic() - start > 60 * options.minutes:
                break
            line = one(trial, folder / f"trial-{number}")
            file.write(json.dumps(line) + "\n")
            file.flush()
            counts[line["outcome"]] += 1
            if line["outcome"] not in SURVIVED:
                print(f"{trial.key}: {line['outcome']}: {line['said'][-600:]}", flush=True)
    print(f"{module.NAME}: {dict(counts)} in {time.monotonic() - start:.0f} s", flush=True)


def one(trial: Trial, own: Path) -> dict[str, Any]:
    """Run one trial in a folder of its own; return its line of the results."""
    own.mkdir()
    start = time.monotonic()
    outcome, said = trial.run(own)
    _remove(own)
    return {
        "key": trial.key.encode(errors="backslashreplace").decode(), "kind": trial.kind, "outcome": outcome,
        "said": "" if outcome in SURVIVED else said[-2000:], "seconds": round(time.monotonic() - start, 2),
    }  # fmt: skip


def _remove(own: Path) -> None:
    for path in own.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(own, ignore_errors=True)


def read(path: Path) -> list[dict[str, Any]]:
    """Read results; a line that a kill tore is left out."""
    lines = path.read_text(errors="replace").split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def write_table(results: Path, readme: Path) -> int:
    """Write the table of all results; return the number of trials that found faults."""
    kinds: dict[str, Counter[str]] = {}
    for path in sorted(results.glob("*.jsonl"), key=lambda p: MODULES.index(p.stem) if p.stem in MODULES else 99):
        for line in read(path):
            kinds.setdefault(line["kind"], Counter())[line["outcome"]] += 1
    total = sum(kinds.values(), Counter[str]())
    rows = [_row(kind, counts) for kind, counts in kinds.items()] + [_row("**all**", total)]
    header = f"| what | tried | survived | {' | '.join(_COLUMNS)} |"
    table = "\n".join([header, "|---|" + "---:|" * (len(_COLUMNS) + 2), *rows])
    before, rest = readme.read_text().split(_MARKS[0])
    readme.write_text(f"{before}{_MARKS[0]}\n{table}\n{_MARKS[1]}{rest.split(_MARKS[1])[1]}")
    return sum(count for outcome, count in total.items() if outcome not in SURVIVED)


def _row(kind: str, counts: Counter[str]) -> str:
    survived = sum(counts[outcome] for outcome in SURVIVED)
    faults = (sum(counts[outcome] for outcome in outcomes) for outcomes in _COLUMNS.values())
    return f"| {kind} | {counts.total():,} | {survived:,} | {' | '.join(f'{n:,}' for n in faults)} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument(
        "--size", type=float, default=0.2, help="share of the trials; 1 takes about an hour on an idle core"
    )
    parser.add_argument(
        "--only", nargs="*", default=list(MODULES), help=f"some of {', '.join(MODULES)}; none: the table alone"
    )
    parser.add_argument("--seed", type=int, default=0, help="of mutations and moments")
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="after which a module stops; 0 for all of its trials"
    )
    parser.add_argument("--results", type=Path, default=Path("runs/campaign"), help="folder of the results")
    parser.add_argument("--stages", nargs="*", default=[], help="kill these alone")
    parser.add_argument("--cold", action="store_true", help="load nothing beforehand: for a few trials")
    parser.add_argument("--every", type=int, default=1, help="run every n-th trial of each module alone")
    parser.add_argument("--readme", type=Path, default=README, help="file whose table is written")
    parser.add_argument("--again", action="store_true", help="repeat the trials that found faults")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
