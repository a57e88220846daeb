"""Scoring of the growing prefixes of beam searches, with and without a prefix cache: CPU seconds and tokens computed.

    OMP_NUM_THREADS=1 taskset -c 0 python -m tests.benchmarks.bench_prefix_scoring [--model DIR]

Problems of random tokens are searched one after the other. In every round 16 prefixes are scored: 4 continuations, each
of a step of 20 to 40 tokens, of every kept prefix, of which a random choice keeps 4. Models have random weights: the
quickstart's architecture, and that of --model, or SmolLM2-135M's sizes. Both ways score the same prefixes in turn.

- packs: every call by itself; the prefixes of a call share what they have in common;
- cache: keys and values of earlier calls are kept (``prefix_cache_gib``), so only the new steps are computed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stepverify.data.encode import Example
from stepverify.models import ProcessModel
from stepverify.models.incremental import open_cache, score_examples
from stepverify.records import Solution
from tests.benchmarks.bench_train import header, row

SMOLLM2: dict[str, Any] = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True, "rope_theta": 100_000.0,
    "max_position_embeddings": 8192,
}  # fmt: skip
QUICKSTART = Path(__file__).parents[2] / "lit_configs" / "quickstart" / "base"
TAG = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a model's config.json")
    parser.add_argument("--problems", type=int, default=1)
    parser.add_argument("--beams", type=int, default=16, help="prefixes scored in a round")
    parser.add_argument("--width", type=int, default=4, help="continuations of each kept prefix")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--prompt", type=int, default=80, help="tokens of a prompt")
    parser.add_argument("--step", type=int, nargs=2, default=[20, 40], help="least and most tokens of a step")
    parser.add_argument("--gib", type=float, default=1.0, help="size of the cache")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    header("model", "way", "seconds", "ratio", "tokens", "computed", "evicted", "largest difference")
    for name, config in (("quickstart", config_of(QUICKSTART)), (arguments.model or "SmolLM2-135M", config_of(arguments.model))):  # fmt: skip
        compare(name, config, arguments)


def config_of(folder: Any) -> Any:
    from transformers import AutoConfig, LlamaConfig

    return LlamaConfig(**SMOLLM2) if folder is None else AutoConfig.from_pretrained(str(folder))


def compare(name: str, config: Any, arguments: argparse.Namespace) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    backbone = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, arguments.dtype))
    model = ProcessModel(backbone.to(arguments.device), (2, 3)).eval()
    cache = open_cache(model, arguments.gib, name)
    assert cache is not None
    rng = np.random.default_rng(0)
    seconds, counts = {"packs": 0.0, "cache": 0.0}, {"packs": [0, 0], "cache": [0, 0]}
    off = 0.0
    for problem in range(arguments.problems):
        for examples in rounds(problem, config.vocab_size, arguments, rng):
            found = {}
            for way, kept in (("packs", None), ("cache", cache)):
                start = time.process_time() if arguments.device == "cpu" else time.perf_counter()

                def count(tokens: int, cached: int, total: list[int] = counts[way]) -> None:
                    total[0], total[1] = total[0] + tokens, total[1] + tokens - cached

                found[way] = dict(score_examples(model, examples, 8192, kept, count))
                seconds[way] += (time.process_time() if arguments.device == "cpu" else time.perf_counter()) - start
            for i, along in found["packs"].items():
                off = max(off, *(abs(a - b) for a, b in zip(along, found["cache"][i], strict=True)))
    for way, (tokens, computed) in counts.items():
        ratio, evicted = seconds["packs"] / seconds[way], cache.evicted_tokens if way == "cache" else 0
        row(
            name,
            way,
            f"{seconds[way]:.2f}",
            f"{ratio:.2f}",
            f"{tokens:,}",
            f"{computed:,}",
            f"{evicted:,}",
            f"{off:.0e}",
        )


def rounds(problem: int, size: int, arguments: argparse.Namespace, rng: np.random.Generator) -> Any:
    """Yield the prefixes of each round."""
    record = Solution(id="", problem_id=str(problem), problem="", steps=[])
    kept: list[tuple[list[int], list[int]]] = [(rng.integers(4, size, arguments.prompt).tolist(), [])]
    for _ in range(arguments.rounds):
        grown = []
        for i in range(arguments.beams):
            ids, tags = kept[i * len(kept) // arguments.beams]
            step = rng.integers(4, size, rng.integers(arguments.step[0], arguments.step[1] + 1)).tolist()
            grown.append(([*ids, *step, TAG], [*tags, len(ids) + len(step)]))
        yield [Example(ids, tags, None, record) for ids, tags in grown]
        chosen = rng.permutation(arguments.beams)[: max(1, arguments.beams // arguments.width)]
        kept = [grown[i] for i in chosen]


if __name__ == "__main__":
    main()
