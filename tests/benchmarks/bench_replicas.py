"""What replicas of an engine in Ray actors cost: the driver's time for a request, and one replica beside none.

    python -m tests.benchmarks.bench_replicas [--model DIR] [--requests 2000] [--samples 8] [--tokens 100] [--runs 5]

First an engine that answers at once, so that nothing is measured but the way to an actor and back: CPU milliseconds of
this process for each request, of a prompt and `--samples` completions of `--tokens` tokens each, 256 requests at a time.
One driver serves no more requests a second than that allows. Next the same completions of synthetic problems by the
embedded engine, here and in one replica in turns, each on one thread: seconds from the first request to the last
completion, medians, and the ratio of tokens a second.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from sampling.engines import Completion, Engine, RayEngine, Request, SamplingOptions, TransformersEngine
from sampling.runtime.seeds import derive_seed
from stepverify.readers import Synthetic
from tests.benchmarks.bench_engines import tiny_model

_AT_ONCE = 256


class Instant(Engine):
    """An engine that answers at once, with the same tokens each time."""

    def __init__(self, tokens: int) -> None:
        self.model, self.usage, self.capacity = "instant", None, _AT_ONCE
        self._ids = list(range(1000, 1000 + tokens))

    def identity(self) -> dict[str, Any]:
        return {"engine": "instant"}

    @property
    def tokenizer(self) -> Any:
        return None

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        return [Completion(self._ids, "a text of some length " * 10, "stop") for _ in range(request.n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a causal language model; a tiny random one if left out")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=128, help="completions at once")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    asyncio.run(driver(arguments))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(overhead(arguments.model or tiny_model(Path(folder)), arguments))


async def driver(arguments: argparse.Namespace) -> None:
    """Print the driver's CPU time for a request."""
    engine = RayEngine(Instant(arguments.tokens), replicas=1)
    options = SamplingOptions(max_tokens=arguments.tokens)
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(i: int) -> None:
        async with places:
            prompt = list(range(i, i + arguments.tokens))
            await engine.complete(Request(str(i), prompt, arguments.samples, i), options)

    await asyncio.gather(*(one(i) for i in range(_AT_ONCE)))
    costs, rates = [], []
    for _ in range(arguments.runs):
        cpu, start = time.process_time(), time.perf_counter()
        await asyncio.gather(*(one(i) for i in range(arguments.requests)))
        costs.append(1000 * (time.process_time() - cpu) / arguments.requests)
        rates.append(arguments.requests / (time.perf_counter() - start))
    await engine.aclose()
    print(
        f"driver: {median(costs):.2f} ({min(costs):.2f} – {max(costs):.2f}) CPU ms for a request of "
        f"{arguments.samples} × {arguments.tokens} tokens; {median(rates):.0f} requests a second to one actor"
    )


async def overhead(model: str, arguments: argparse.Namespace) -> None:
    """Print the tokens a second of one replica and of the engine alone."""
    alone = TransformersEngine(model, batch_size=arguments.batch_size)
    replica = RayEngine(TransformersEngine(model, batch_size=arguments.batch_size), replicas=1)
    options = SamplingOptions(temperature=1.0, max_tokens=arguments.tokens)
    requests = [
        Request(p.id, alone.tokenizer.encode(f"{p.problem}\n"), arguments.samples, derive_seed(0, p.id))
        for p in Synthetic("test", arguments.problems, worked=False).problems()
    ]
    taken: dict[str, list[float]] = {"engine alone": [], "one replica": []}
    tokens = 0
    for run in range(arguments.runs + 1):  # the first one loads
        for (_, seconds), engine in zip(taken.items(), (alone, replica), strict=True):
            start = time.perf_counter()
            found = await asyncio.gather(*(engine.complete(request, options) for request in requests))
            if run:
                seconds.append(time.perf_counter() - start)
            tokens = sum(len(c.token_ids or ()) for completions in found for c in completions)
    await alone.aclose()
    await replica.aclose()
    rates = {name: tokens / median(seconds) for name, seconds in taken.items()}
    for name, seconds in taken.items():
        span = f"{min(seconds):.2f} – {max(seconds):.2f}"
        ratio = rates[name] / rates["engine alone"]
        print(f"{name:14}{median(seconds):8.2f} s{span:>16}{rates[name]:9.0f} tokens/s{ratio:7.2f}")


if __name__ == "__main__":
    main()
