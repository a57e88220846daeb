"""Engines without a model, and how tests that are no coroutines ask any engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from types import SimpleNamespace

from sampling.engines import Completion, Engine, Request, SamplingOptions
from sampling.runtime.scheduler import run_all


def complete_all(
    engine: Engine, requests: Iterable[Request], options: SamplingOptions, max_in_work: int | None = None
) -> dict[str, list[Completion]]:
    """Completions of all requests by key, in the order in which they came, and close the engine."""
    found: dict[str, list[Completion]] = {}

    async def one(request: Request) -> None:
        found[request.key] = await engine.complete(request, options)

    async def every() -> None:
        async with aclosing(engine):
            await run_all(requests, one, max_in_work=max_in_work)

    asyncio.run(every())
    return found


class CodePoints:
    """A tokenizer with a token for each character: its code point."""

    eos_token_id, bos_token_id, name_or_path = 0, None, "code points"

    def __call__(self, text):
        return SimpleNamespace(input_ids=self.encode(text))

    def encode(self, text, add_special_tokens=False):
        return [ord(c) for c in text]

    def decode(self, ids, skip_special_tokens=True):
        return "".join(map(chr, ids))


class FakeEngine(Engine):
    """Completions that say which seed they were sampled with; remembers what it was asked for."""

    model, tokenizer = "fake", CodePoints()

    def __init__(self, delay=0.0):
        self.delay, self.asked, self.options = delay, [], None

    def identity(self):
        return {"engine": "fake", "model": self.model}

    async def complete(self, request, options):
        self.options = options
        self.asked.append(request)
        await asyncio.sleep(self.delay * len(self.asked))  # one after the other
        return [self.completion(request.seed + i) for i in range(request.n)]

    @staticmethod
    def completion(seed):
        finish = "length" if seed % 5 == 0 else "stop"
        return Completion([seed % 97, 0], f"  seed {seed} \n\nthen\n#### {seed % 11}", finish)


PROBLEMS = ["a = 7 ; a ?", "a = 7 ; b = a * 3 ; b ?", "a = 1 ; b = a - 3 ; c = b + 2 ; c ?", "a = 10 ; a ?"]


def complete(engine, requests, **options):
    settled = {"temperature": 1.0, "max_tokens": 40} | options
    return complete_all(engine, requests, SamplingOptions(**settled))
