"""Replicas of a real engine whose actors and driver are killed at random moments: the records of one process.

    python -m tests.campaign.replicas --model DIR [--engine TransformersEngine] [--actors 50] [--drivers 20]

Samples and rollout labels of synthetic problems by two replicas, once undisturbed in this process and once in a driver of
its own. A request takes half a second more there, so that there is always one in work. Actors are killed by SIGKILL at
random moments until their number is reached; then the driver, its whole session left to itself, and the same command goes
on. At the end both folders hold the same records, no actor is alive, and the replicas were asked twice for no more than
what was in work when something was killed. Not part of `make campaign`: it needs Ray and a model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from sampling.__main__ import main as sampling
from sampling.engines import CalculatorEngine, Completion, Engine, Request, SamplingOptions
from sampling.engines.base import unloaded
from stepverify.jsonl import read_records
from stepverify.records import Solution
from tests.helpers.replicas import notes

PLACES = 8  # completions at once in a replica
WAITING = {"TransformersEngine": 8, "VllmEngine": 2}  # requested of a replica, in its places
EARLY = 0.15  # share of the kills while samples are drawn, which takes a few requests only; the others are of rollouts
LETHAL = "died while they worked on it, the last two on it alone"
ASKED = 12  # requests of each replica before a kill: one that is killed four times in a row would count as lethal


class Noting(CalculatorEngine):
    """An engine that notes on disk what it is asked for, and waits before it samples."""

    def __init__(self, engine: Engine, folder: str, seconds: float) -> None:
        super().__init__(engine)
        self.folder, self.seconds = folder, seconds

    def __getstate__(self) -> dict[str, Any]:
        return unloaded(self)

    def identity(self) -> dict[str, Any]:
        return self.engine.identity()

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        with (Path(self.folder) / str(os.getpid())).open("a") as file:
            file.write(f"{request.key} {request.seed}\n")
        await asyncio.sleep(self.seconds)
        return await self.engine.complete(request, options)


def configurations(folder: Path, model: str, kind: str, problems: int) -> dict[str, dict[str, Any]]:
    """Write both stages for a plain engine and for replicas; return them by name."""
    inner: dict[str, Any] = {"class_path": kind, "init_args": {"model": model, "dtype": "float32"}}
    if kind == "TransformersEngine":
        inner["init_args"]["batch_size"] = PLACES
    else:
        inner["init_args"] |= {"max_model_len": 256, "block_size": 32, "cpu_kv_cache_gib": 1, "max_in_flight": PLACES}
        inner["init_args"]["enforce_eager"] = True  # compiling takes minutes, and each new replica would again
    noting = {
        "class_path": "tests.campaign.replicas.Noting",
        "init_args": {"engine": inner, "folder": str(folder / "notes"), "seconds": 0.5},
    }
    replicas = {
        "class_path": "RayEngine", "init_args": {"engine": noting, "replicas": 2, "resources": {"num_cpus": 0.1}},
    }  # fmt: skip
    read = {"class_path": "Synthetic", "init_args": {"split": "test", "num_problems": problems, "worked": False}}
    found = {}
    for name, engine in (("one", inner), ("two", replicas)):
        sampling = {"temperature": 1.0, "max_tokens": 48}
        samples: dict[str, Any] = {"engine": engine, "problems": read, "num_samples": 4, "sampling": sampling}
        if kind != "TransformersEngine" or not (Path(model) / "stepverify.json").exists():
            samples["template"] = {"prompt": "{problem}\n"}
        rollouts: dict[str, Any] = {
            "class_path": "Rollouts",
            "init_args": {"engine": engine, "sampling": sampling, "strategy": {"class_path": "EarlyStop"}},
        }
        rollouts["init_args"] |= {key: samples[key] for key in ("template",) if key in samples}
        for stage, config in (
            ("generate", samples), ("label", {"input": str(folder / name / "generate"), "steps": rollouts}),
        ):  # fmt: skip
            config["output"] = str(folder / name / stage)
            (folder / f"{name}_{stage}.yaml").write_text(json.dumps(config))
            found[f"{name}_{stage}"] = config
    return found


def disturbed(folder: Path, stage: str, actors: int, drivers: int, rng: random.Random) -> Counter[str]:
    """Run a stage by replicas until it ends; return how often what was killed."""
    command = [sys.executable, "-m", "sampling", stage, "--config", str(folder / f"two_{stage}.yaml")]
    killed, gone = Counter[str](), set[int]()
    while True:
        with (folder / f"{stage}.log").open("a") as log:
            driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        while driver.poll() is None:
            alive = working(folder, gone, ASKED)
            if len(alive) < 2:
                time.sleep(0.2)
                continue
            time.sleep(rng.uniform(0, 3))
            left = {"actors": actors - killed["actors"], "drivers": drivers - killed["drivers"]}
            if rng.random() * sum(left.values()) < left["actors"]:
                victim = rng.choice(sorted(alive))
                killed["actors"] += 1
            elif left["drivers"]:
                victim = driver.pid
                killed["drivers"] += 1
            else:
                break
            gone |= {victim} if victim != driver.pid else set()
            with suppress(ProcessLookupError):  # the stage may have ended meanwhile
                os.kill(victim, signal.SIGKILL)
            if victim == driver.pid:
                driver.wait()
                deadline = time.monotonic() + 60
                while orphans := working(folder, gone):
                    assert time.monotonic() < deadline, f"alive after their driver: {orphans}"
                    time.sleep(0.2)
        if driver.wait() == 0:
            return killed
        said = (folder / f"{stage}.log").read_text()[-3000:]
        if driver.returncode == 2 and LETHAL in said:  # the run ends, and called again goes on
            killed["lethal"] += 1
        else:
            assert driver.returncode == -signal.SIGKILL, said


def working(folder: Path, gone: set[int], asked: int = 1) -> set[int]:
    """Return the processes of replicas that have been asked so often and are alive."""
    return {
        pid for pid, some in notes(folder / "notes").items()
        if pid not in gone and len(some) >= asked and Path(f"/proc/{pid}/exe").exists()
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a causal language model")
    parser.add_argument("--engine", default="TransformersEngine", choices=["TransformersEngine", "VllmEngine"])
    parser.add_argument("--actors", type=int, default=50, help="kills of replicas, over both stages")
    parser.add_argument("--drivers", type=int, default=20, help="kills of the driver, over both stages")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one if left out")
    arguments = parser.parse_args()
    if arguments.folder:
        arguments.folder.mkdir(parents=True)
        run(arguments.folder.resolve(), arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), arguments)


def run(folder: Path, arguments: argparse.Namespace) -> None:
    """Run both stages both ways, and print what was killed and compared."""
    rng = random.Random(arguments.seed)
    configurations(folder, arguments.model, arguments.engine, arguments.problems)
    capacity = WAITING[arguments.engine] * PLACES
    for stage, share in (("generate", EARLY), ("label", 1 - EARLY)):
        (folder / "notes").mkdir(exist_ok=True)
        for file in (folder / "notes").iterdir():
            file.unlink()
        assert sampling([stage, "--config", str(folder / f"one_{stage}.yaml")]) in (0, None)
        actors, drivers = (round(share * n) for n in (arguments.actors, arguments.drivers))
        start = time.monotonic()
        killed = disturbed(folder, stage, actors, drivers, rng)
        one, two = ({s.id: s for s in read_records(folder / name / stage, Solution)} for name in ("one", "two"))
        asked = Counter(key for some in notes(folder / "notes").values() for key in some)
        twice = sum(asked.values()) - len(asked)
        most = capacity * (killed["actors"] + 2 * killed["drivers"] + 2 * killed["lethal"])
        equal = one == two
        print(
            f"{stage}: {arguments.engine}, {killed['actors']} kills of replicas, {killed['drivers']} of the driver, "
            f"{killed['lethal']} requests that died with four replicas, in "
            f"{time.monotonic() - start:.0f} s: {len(two)} records, {'equal' if equal else 'DIFFERENT'}; "
            f"{sum(asked.values())} requests, {twice} of them asked again (at most {most} were in work)",
            flush=True,
        )
        assert equal
        assert twice <= most


if __name__ == "__main__":
    main()
