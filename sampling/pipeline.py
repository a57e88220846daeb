"""Run the stages of a recipe in order, each as a process of its own. Imports neither torch nor an engine."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from sampling.runtime.problem_shard import ProblemShard
from stepverify.pipelines import PIPELINE, Stage, read_pipeline
from stepverify.records import InputError
from stepverify.starting.next_commands import IN_PIPELINE
from stepverify.suggest import OneLineParser
from stepverify.variables import FILE, Variables, split_arguments, variables_file

_SHARDED = ("sampling generate", "sampling label", "sampling score", "sampling search")
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(args: Sequence[str]) -> int:
    """Run a pipeline; return the exit code of the first stage that fails, or 0.

    Raises:
        InputError: a pipeline, a variable or a choice of stages that there is not.
    """
    commands, dry_run = plan(args)
    if dry_run:
        for _, command in commands:
            print(shlex.join(command))
        return 0
    start = time.monotonic()
    for name, command in commands:
        print(f"\n── {name}: {shlex.join(command)}", flush=True)
        began = time.monotonic()
        if code := run_process(command):
            again = shlex.join(["sampling", "pipeline", *args])
            print(f"sampling pipeline: {name} ended with exit code {code}; go on with:\n  {again}", file=sys.stderr)
            return code
        print(f"   {time.monotonic() - began:.0f} s", flush=True)
    print(f"\ntotal {time.monotonic() - start:.0f} s", flush=True)
    return 0


def plan(args: Sequence[str]) -> tuple[list[tuple[str, list[str]]], bool]:
    """Return name and command line of each stage that is asked for, and whether they are only to be printed.

    Raises:
        InputError: as :func:`main`.
    """
    given, rest = split_arguments(args)
    options = _parser().parse_args(rest)
    file = options.pipeline / PIPELINE if options.pipeline.is_dir() else options.pipeline
    stages, common = read_pipeline(file)
    for overlay in options.overlay:
        if not overlay.startswith("{") and not Path(overlay).is_file():
            raise InputError(f"--overlay {overlay}: no such file")
    values = _values(file, common | given)
    chosen = choose(stages, values, only=options.only, first=options.first, last=options.last)
    if options.shard is not None:
        ProblemShard.parse(options.shard)
        if others := [stage for stage in chosen if stage.run not in _SHARDED]:
            raise InputError(
                f"--shard {options.shard}: {others[0].name} ({others[0].run}) works on all problems; choose "
                "stages before it with --to, or one with --only"
            )
    commands = [
        (stage.name, stage.command(options.overlay, common | given, options.shard, options.limit)) for stage in chosen
    ]
    return commands, options.dry_run


def choose(
    stages: Sequence[Stage], values: Mapping[str, Any], *, only: Sequence[str] = (), first: str | None = None,
    last: str | None = None,
) -> list[Stage]:  # fmt: skip
    """Choose stages by name or number; stages with a condition only where that holds, or by ``only``.

    Raises:
        InputError: a name that no stage has, or an empty range.
    """
    if only:
        picked = {i for word in only for i in _find(stages, word)}
        return [stage for i, stage in enumerate(stages) if i in picked]
    start = _find(stages, first)[0] if first else 0
    end = _find(stages, last)[-1] if last else len(stages) - 1
    if start > end:
        raise InputError(f"--from {first}: comes after --to {last}")
    return [s for s in stages[start : end + 1] if not s.when or any(values[name] for name in s.when)]


def run_process(command: Sequence[str]) -> int:
    """Run one stage and hand it the signals of this process; return its exit code, 128 + n where signal n ended it."""
    environment = os.environ | {IN_PIPELINE: "1"}
    # In a group of its own: from a terminal Ctrl-C would reach it twice, and a second one ends it at once.
    child = subprocess.Popen(
        [sys.executable, "-m", *command], process_group=0, stdin=subprocess.DEVNULL, env=environment
    )

    def forward(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code


def _values(file: Path, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the variables beside a pipeline, or in the folder above; refuse names that are not defined there."""
    variables = Variables(given)
    found = variables.of(variables_file(file))
    variables.check()
    return found


def _find(stages: Sequence[Stage], word: str) -> list[int]:
    """Return the places of the stages of a name, with or without its number, or of a number."""
    names = [stage.name for stage in stages]
    found = [i for i, name in enumerate(names) if word in (name, name.partition("_")[2])]
    if word.isdigit() and not found:
        found = [i for i, name in enumerate(names) if name.partition("_")[0].lstrip("0") == word.lstrip("0")]
    if not found:
        raise InputError(f"{word}: no stage has that name or number; there are: {', '.join(names)}")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="sampling pipeline", allow_abbrev=False,
        description="Run the stages of a recipe in order, each as a process of its own. Stages that have finished are "
        "skipped, a stage that was killed goes on; the first one that fails ends the pipeline with its exit code.",
    )  # fmt: skip
    parser.add_argument("pipeline", type=Path, help=f"a folder with a {PIPELINE}, or such a file")
    parser.add_argument(
        "--set", metavar="NAME=VALUE", help=f"change a variable of {FILE}, for all stages; may be repeated"
    )
    parser.add_argument(
        "--overlay", action="append", default=[], metavar="FILE.yaml",
        help="a further configuration of every stepverify fit, as lit_configs/overlays/lora.yaml, or the YAML itself: "
        "'{trainer: {precision: bf16-mixed}}'; may be repeated",
    )  # fmt: skip
    parser.add_argument("--from", dest="first", metavar="STAGE", help="begin with this stage, by name or number")
    parser.add_argument("--to", dest="last", metavar="STAGE", help="end with this stage")
    parser.add_argument(
        "--only", action="append", default=[], metavar="STAGE",
        help="run this stage alone, even one that needs a variable to be true; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--shard", metavar="i/n",
        help="run generate, label, score and search on the problems of job i of n alone; give each job a folder of its "
        "own, as --set runs=FOLDER/i",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, metavar="N",
        help="a trial: every stage but stepverify fit reads the first N problems alone; give it a folder of its own, "
        "as --set runs=runs/trial",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the command lines without running them")
    return parser
