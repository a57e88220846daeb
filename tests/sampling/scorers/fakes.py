"""A scorer without a model, in one process or several: quick to start, and slow, incorrect or dead where it is asked to be."""

import os
import signal
import time
import zlib
from functools import partial
from pathlib import Path

from sampling.engines.base import Usage
from sampling.scorers import Scorer
from sampling.scorers.workers import LocalWorker, Pool, ProcessWorker
from stepverify.records import InputError


class FakeScorer(Scorer):
    """Values are digests of the steps so far.

    Args:
        folder: each process leaves a file there that is named as it.
        processes: 0 scores in this one.
        seconds: a solution takes.
        ends_at: id of the solution at which the process is killed, once; ``error`` and ``input`` in it raise.
    """

    def __init__(self, folder: str, processes: int = 2, seconds: float = 0.0, ends_at: str = "") -> None:
        build = partial(load, folder, seconds, ends_at)
        self.processes, self.folder = processes, folder
        self.usage = Usage()
        workers = [ProcessWorker(build, f"fake {i}") for i in range(processes)] or [LocalWorker(build)]
        self.pool = Pool(workers, self.usage)
        self.concurrency = 2 * max(1, processes)

    async def score(self, solutions):
        return await self.pool.score(solutions)

    def identity(self):
        return {"scorer": "fake"}

    async def aclose(self):
        self.pool.close()


def load(folder, seconds, ends_at):
    (Path(folder) / str(os.getpid())).touch()
    return partial(stream, Path(folder), seconds, ends_at)


def stream(folder, seconds, ends_at, solutions, count):
    with (folder / str(os.getpid())).open("a") as file:
        file.write(f"{len(solutions)}\n")
    for i, s in enumerate(solutions):
        time.sleep(seconds)
        if s.id == ends_at == "input":
            raise InputError("an incorrect file")
        if s.id == ends_at == "error":
            raise ZeroDivisionError("nobody expected this")
        if s.id == ends_at and not (folder / "ended").exists():
            (folder / "ended").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if s.steps:
            count(10 * len(s.steps), len(s.steps) - 1)
            yield i, values_of(s)


def values_of(s):
    """One for each step, of the steps up to there."""
    return [zlib.crc32("\n".join(s.steps[:end]).encode()) % 1000 / 1000 for end in range(1, len(s.steps) + 1)]
