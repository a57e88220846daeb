"""Samples and tokens a second of the embedded engine, of transformers' own `generate`, and of vLLM.

    python -m tests.benchmarks.bench_engines [--model DIR] [--vllm] [--problems 32] [--samples 8] [--runs 5]

All draw the same numbers of completions of the same synthetic problems, by the same options, at one batch size.
Without --model a tiny network with random weights is made. A run is measured from the first request to the last
completion, loading and one warm-up left out; runs take turns, so that a busy machine is unfair to none. CPU seconds
are of all threads, medians too. Ratios are of tokens a CPU second, to transformers' own.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from sampling.engines import Engine, Request, SamplingOptions, TransformersEngine, VllmEngine
from sampling.runtime.seeds import derive_seed
from stepverify.readers import Synthetic
from tests.helpers.engines import complete_all

Run = Callable[[], tuple[int, int]]  # → completions and tokens that were sampled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a causal language model; a tiny random one if left out")
    parser.add_argument("--vllm", action="store_true", help="measure vLLM too")
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--max_tokens", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=128, help="completions at once")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or tiny_model(Path(folder))
        compare(model, arguments)


def compare(model: str, arguments: argparse.Namespace) -> None:
    """Measure all contestants in turn and print medians."""
    engine = TransformersEngine(model, batch_size=arguments.batch_size)
    options = SamplingOptions(temperature=1.0, max_tokens=arguments.max_tokens)
    requests = [
        Request(p.id, engine.tokenizer.encode(f"{p.problem}\n"), arguments.samples, derive_seed(0, p.id))
        for p in Synthetic("test", arguments.problems, worked=False).problems()
    ]
    contestants: dict[str, Run] = {
        "transformers.generate": lambda: generate_plainly(engine, requests, options),
        "TransformersEngine": lambda: generate_by(engine, requests, options),
    }
    if arguments.vllm:
        other = VllmEngine(model, dtype="float32", max_model_len=256, block_size=32, cpu_kv_cache_gib=1)
        contestants["VllmEngine"] = lambda: generate_by(other, requests, options)
    for run in contestants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    sampled: dict[str, tuple[int, int]] = {}
    for _ in range(arguments.runs):
        for name, run in contestants.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            sampled[name] = run()
            seconds[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - cpu_start)
    print(
        f"{Path(model).name}: {arguments.problems} problems × {arguments.samples} samples of at most "
        f"{arguments.max_tokens} tokens, {arguments.batch_size} at once, {torch.get_num_threads()} threads, "
        f"{arguments.runs} runs, medians"
    )
    print(f"{'':24}{'seconds':>9}{'min – max':>16}{'samples/s':>11}{'tokens/s':>10}{'tokens/CPU s':>14}{'ratio':>7}")
    rates = {name: sampled[name][1] / median(taken) for name, taken in cpu.items()}
    for name, taken in seconds.items():
        span = f"{min(taken):.2f} – {max(taken):.2f}"
        print(
            f"{name:24}{median(taken):9.2f}{span:>16}{sampled[name][0] / median(taken):11.1f}"
            f"{sampled[name][1] / median(taken):10.0f}{rates[name]:14.0f}{rates[name] / rates['transformers.generate']:7.2f}"
        )


def generate_by(engine: Engine, requests: list[Request], options: SamplingOptions) -> tuple[int, int]:
    """All completions by an engine of ours."""
    found = complete_all(engine, requests, options)
    completions = [c for some in found.values() for c in some]
    return len(completions), sum(len(c.token_ids) for c in completions)


@torch.inference_mode()
def generate_plainly(engine: TransformersEngine, requests: list[Request], options: SamplingOptions) -> tuple[int, int]:
    """All completions by `generate` over left-padded batches, as its documentation has it."""
    network, tokenizer = engine._network, engine.tokenizer
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id or 0
    rows = max(1, engine.batch_size // requests[0].n)
    samples = tokens = 0
    torch.manual_seed(0)
    for at in range(0, len(requests), rows):
        batch = [r.prompt_ids for r in requests[at : at + rows]]
        length = max(map(len, batch))
        ids = torch.tensor([[pad] * (length - len(p)) + p for p in batch], device=network.device)
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in batch], device=network.device)
        out = network.generate(
            ids, attention_mask=mask, do_sample=True, temperature=options.temperature, top_k=0, top_p=1.0,
            num_return_sequences=requests[0].n, max_new_tokens=options.max_tokens, eos_token_id=end, pad_token_id=pad,
        )  # fmt: skip
        for row in out[:, length:].tolist():
            samples += 1
            tokens += row.index(end) + 1 if end in row else len(row)
    return samples, tokens


def tiny_model(folder: Path) -> str:
    """A random Llama of width 128, with the quickstart's tokenizer; 2 heads of 64 suit vLLM on CPU too."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    base = Path(__file__).parents[2] / "lit_configs" / "quickstart" / "base"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(base))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.1, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return str(folder)


if __name__ == "__main__":
    main()
