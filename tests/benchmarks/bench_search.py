"""How busy a search keeps the engine, beside plain sampling of as many tokens at the same batch limit.

    python -m tests.benchmarks.bench_search [--model DIR] [--problems 200] [--beams 16] [--batch_size 256] [--runs 3]

Beam search with values that cost nothing, so that the engine alone is measured, then plain sampling of whole solutions of
the same problems, about as many tokens; the runs take turns. Without --model a tiny random network is made,
whose solutions end after 4 lines of 8 tokens. Seconds are from the first request to the last; ratios are of tokens a
second and of tokens a CPU second, medians. --vllm measures the vLLM engine, whose prefix cache reads no prefix twice.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from sampling.engines import Engine, Request, SamplingOptions, TransformersEngine, VllmEngine
from sampling.runtime.seeds import derive_seed
from sampling.search import BeamSearch
from stepverify.readers import Synthetic
from stepverify.template import Template
from tests.benchmarks.bench_engines import tiny_model
from tests.helpers.engines import complete_all
from tests.helpers.searches import Valued, explored_problems

TEMPLATE = Template(prompt="{problem}\n", step_tag="<step>")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a causal language model; a tiny random one if left out")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--beams", type=int, default=16)
    parser.add_argument("--max_tokens", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=256, help="completions at once")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--vllm", action="store_true", help="the vLLM engine in the place of the embedded one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments.model or tiny_model(Path(folder)), arguments)


def compare(model: str, arguments: argparse.Namespace) -> None:
    """Measure both in turn and print medians."""
    engine: Engine = TransformersEngine(model, batch_size=arguments.batch_size)
    if arguments.vllm:
        engine = VllmEngine(
            model, dtype="float32", max_model_len=256, block_size=32, cpu_kv_cache_gib=2, enforce_eager=True,
            max_in_flight=arguments.batch_size,
        )  # fmt: skip
    options = SamplingOptions(temperature=1.0, max_tokens=arguments.max_tokens)
    problems = list(Synthetic("test", arguments.problems, worked=False).problems())
    *_, length = sample(engine, problems, 1, options)  # warm up; the mean length of a solution
    length /= len(problems)
    figures: dict[str, list[tuple[float, float, float]]] = {"beam search": [], "plain sampling": []}
    for _ in range(arguments.runs):
        figures["beam search"].append(search(engine, problems, arguments.beams, options))
        tokens = figures["beam search"][-1][2]
        figures["plain sampling"].append(sample(engine, problems, round(tokens / length / len(problems)), options))
    print(
        f"{Path(model).name}: {arguments.problems} problems, {arguments.beams} beams, {arguments.batch_size} completions "
        f"at once, {arguments.runs} runs, medians"
    )
    print(f"{'':16}{'tokens':>10}{'seconds':>9}{'tokens/s':>10}{'tokens/CPU s':>14}")
    rates = {}
    for name, runs in figures.items():
        wall, cpu = (median(run[2] / run[i] for run in runs) for i in (0, 1))
        rates[name] = wall, cpu
        print(f"{name:16}{median(r[2] for r in runs):10.0f}{median(r[0] for r in runs):9.2f}{wall:10.0f}{cpu:14.0f}")
    ratios = [a / b for a, b in zip(rates["beam search"], rates["plain sampling"], strict=True)]
    print(f"search to sampling: {ratios[0]:.2f} of the tokens a second, {ratios[1]:.2f} of those a CPU second")


def search(engine: Engine, problems: list[Any], beams: int, options: SamplingOptions) -> tuple[float, float, float]:
    """Seconds, CPU seconds and tokens of a beam search."""
    start, cpu = time.perf_counter(), time.process_time()
    found, _ = explored_problems(
        problems, BeamSearch(beams, 4), engine=engine, scorer=Valued(lambda steps: 0.5), template=TEMPLATE,
        sampling=options, max_depth=12, window=1 + 4 * engine.capacity // beams,
    )  # fmt: skip
    tokens = sum(tree.costs.total().generated_tokens for tree, _ in found)
    return time.perf_counter() - start, time.process_time() - cpu, tokens


def sample(engine: Engine, problems: list[Any], number: int, options: SamplingOptions) -> tuple[float, float, float]:
    """Seconds, CPU seconds and tokens of this many whole solutions of each problem."""
    requests = [
        Request(p.id, engine.tokenizer.encode(f"{p.problem}\n"), number, derive_seed(0, p.id)) for p in problems
    ]
    start, cpu = time.perf_counter(), time.process_time()
    found = complete_all(engine, requests, options)
    sampled = sum(completion.num_tokens for group in found.values() for completion in group)
    return time.perf_counter() - start, time.process_time() - cpu, sampled


if __name__ == "__main__":
    main()
