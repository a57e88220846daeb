"""An engine and a scorer that run in Ray actors, and say on disk what they were asked for."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from sampling.engines import Completion, Engine, SamplingOptions
from sampling.engines.base import Usage
from sampling.runtime.scheduler import run_all
from sampling.scorers import Scorer
from stepverify.records import InputError
from tests.helpers.engines import CodePoints, FakeEngine

SMALL = {"num_cpus": 0.1}  # more replicas than a test machine has cores


class Noted(Engine):
    """Gives the completions of :class:`FakeEngine` after some seconds, and notes each request with its process.

    Requests whose key begins with ``lethal`` end the process, ``wrong`` is refused as bad input, ``endless`` waits.
    """

    model, tokenizer, capacity = "noted", CodePoints(), 8

    def __init__(self, folder, seconds=0.0, unable=False):
        self.folder, self.seconds, self.unable, self.usage = str(folder), seconds, unable, Usage()

    def identity(self):
        return {"engine": "noted"}

    def note(self, what):
        with (Path(self.folder) / f"{os.getpid()}").open("a") as file:
            file.write(what + "\n")

    async def complete(self, request, options):
        if self.unable:
            os._exit(3)
        self.note(request.key)
        try:
            await asyncio.sleep(1000 if request.key == "endless" else self.seconds)
        except asyncio.CancelledError:
            self.note("cancelled")
            raise
        if request.key.startswith("lethal"):
            os.kill(os.getpid(), signal.SIGKILL)
        if request.key.startswith("wrong"):
            raise InputError(f"{request.key}: the prompt is too long")
        self.usage.count(10, 4)
        return [FakeEngine.completion(request.seed + i) for i in range(request.n)]


class Lengths(Scorer):
    """Gives every step the share of its length, and notes each problem with its process."""

    objective, concurrency = "process", 2

    def __init__(self, folder):
        self.folder, self.usage = str(folder), Usage()

    def identity(self):
        return {"scorer": "lengths"}

    async def score(self, solutions):
        with (Path(self.folder) / f"{os.getpid()}").open("a") as file:
            file.writelines(f"{s.problem_id}\n" for s in solutions)
        await asyncio.sleep(0.01)
        self.usage.count(len(solutions), 0)
        return [[len(step) / (1 + len(s.problem) + len(step)) for step in s.steps] for s in solutions]


def notes(folder):
    """Return what each process noted."""
    return {int(file.name): file.read_text().splitlines() for file in Path(folder).iterdir()}


def plain(seed, n):
    """Return what a request gives."""
    return [Completion(**{f: getattr(c, f) for f in ("token_ids", "text", "finish")}) for c in map(FakeEngine.completion, range(seed, seed + n))]  # fmt: skip


def asked_of(engine, requests, max_in_work=40):
    """Completions by key, and the errors of requests that failed."""
    found, failed = {}, {}

    async def one(request):
        try:
            found[request.key] = await engine.complete(request, SamplingOptions())
        except InputError as error:
            failed[request.key] = error

    async def every():
        try:
            await run_all(requests, one, max_in_work=max_in_work)
        finally:
            await engine.aclose()

    asyncio.run(every())
    return found, failed
