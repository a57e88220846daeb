"""GSM8K's calculator in three ways: whole solutions corrected, stopping at every `=`, one token a call.

    python -m tests.benchmarks.bench_calculator [--model DIR --data train.jsonl.gz] [--problems 4] [--samples 8]

All draw the same solutions with the same random numbers by the transformers engine; the program fails if one differs.
Counted are rounds of calls, requests, tokens sampled, and tokens read (prompts, and what of a solution is read
again); seconds are of the CPU, loading left out. The first problems of --data are the examples. Without --model, a tiny
network with random weights over digits and signs opens an annotation here and there: quick and offline.
The one-token loop is run on the first --loop_tokens of each solution alone, all of them if 0; its last row, "counted",
says what whole solutions would take.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from sampling.engines import CalculatorEngine, Completion, Engine, Request, SamplingOptions, TransformersEngine
from sampling.engines.base import GOLDEN, completed
from sampling.engines.calculator import calculate
from sampling.runtime.seeds import derive_seed
from stepverify.data.encode import SolutionEncoder
from stepverify.readers import GSM8K
from stepverify.template import Template
from tests.helpers.engines import complete_all

Drawn = dict[str, list[Completion]]


class Counting(Engine):
    """An engine that counts what it is asked for."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.engine, self.model, self.capacity = engine, engine.model, engine.capacity
        self.rounds = self.requests = self.sampled = self.read = 0

    def identity(self):
        return self.engine.identity()

    @property
    def tokenizer(self):
        return self.engine.tokenizer

    async def complete(self, request, options):
        completions = await self.engine.complete(request, options)
        self.requests += 1
        self.read += len(request.prompt_ids) + len(request.prefix_ids)
        self.sampled += sum(len(c.token_ids) - len(request.prefix_ids) for c in completions)
        return completions

    async def aclose(self):
        await self.engine.aclose()

    def complete_all(self, requests, options):
        self.rounds += 1
        return complete_all(self, requests, options)


def whole_solutions(engine: Counting, requests: list[Request], options: SamplingOptions) -> Drawn:
    """Ours."""
    engine.rounds += 1
    return complete_all(CalculatorEngine(engine), requests, options)


def stop_at_equals(engine: Counting, requests: list[Request], options: SamplingOptions) -> Drawn:
    """Every solution stops at every `=`; all that stopped go on together in the next call."""
    return in_calls(engine, requests, options, replace(options, stop=[*options.stop, "="]))


def one_token_a_call(engine: Counting, requests: list[Request], options: SamplingOptions) -> Drawn:
    """The authors' loop: a call draws one token of every solution, after all that was there before."""
    return in_calls(engine, requests, options, replace(options, max_tokens=1))


def in_calls(engine: Counting, requests: list[Request], options: SamplingOptions, asked: SamplingOptions) -> Drawn:
    """Draw on by ``asked`` until every solution has ended by ``options``; the calculator acts at the end of a call."""
    finished: dict[str, list] = {r.key: [None] * r.n for r in requests}
    waiting = {r.key: (r, 0, []) for r in requests}  # key of a call's request → request, first sample, ids so far
    while waiting:
        # What is there is prompt to the engine: its stop texts are looked for after it.
        calls = [
            Request(key, r.prompt_ids + ids, 1 if ids else r.n, r.seed + first + GOLDEN * len(ids))
            for key, (r, first, ids) in waiting.items()
        ]
        following = {}
        for key, completions in engine.complete_all(calls, asked).items():
            request, first, before = waiting[key]
            for i, c in enumerate(completions, start=first):
                ids = before + c.token_ids
                end = ending(engine, ids, options) or ending(engine, ids := put_in(engine, ids) or ids, options)
                if end:
                    finished[request.key][i] = end
                else:
                    following[f"{request.key}#{i}"] = (request, i, ids)
        waiting = following
    return finished


def ending(engine: Counting, ids: list[int], options: SamplingOptions) -> Completion | None:
    """The completion, if ``ids`` are a whole one."""
    ends = engine.engine._load().end_ids
    finish = "stop" if ids[-1] in ends and len(ids) <= options.max_tokens else "length"
    found = completed(engine.tokenizer, ids[: options.max_tokens], finish, options, ends)
    return found if found.finish == "stop" or len(ids) >= options.max_tokens else None


def put_in(engine: Counting, ids: list[int]) -> list[int] | None:
    """``ids`` with the calculator's value, where it acts at the last one."""

    def decode(some):
        return engine.tokenizer.decode(some, skip_special_tokens=True)

    text, before = decode(ids), decode(ids[:-1])
    at = text.find("=", len(before))
    _, begun, expression = text[: max(at, 0)].rpartition("<<")
    if not begun or set(expression) & set("<>=\n") or (value := calculate(expression)) is None:
        return None
    if at + 1 == len(text):
        return ids + CalculatorEngine(engine)._encode(f"{value}>>")
    return ids[:-1] + CalculatorEngine(engine)._encode(f"{text[len(before) : at + 1]}{value}>>")


def counted(engine: Counting, requests: list[Request], sampled: Drawn) -> tuple[int, int, int, int]:
    """Calls, requests, tokens sampled and read of the one-token loop on whole solutions."""
    longest = tokens = read = 0
    for r in requests:
        for c in sampled[r.key]:
            at = steps = 0
            while at < len(c.token_ids):
                read, steps = read + len(r.prompt_ids) + at, steps + 1
                at = len(put_in(engine, c.token_ids[: at + 1]) or c.token_ids[: at + 1])
            longest, tokens = max(longest, steps), tokens + steps
    return longest, tokens, tokens, read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a causal language model; a tiny random one if left out")
    parser.add_argument("--data", help="GSM8K's train.jsonl or train.jsonl.gz; with --model")
    parser.add_argument("--shots", type=int, default=4, help="worked examples in front of every problem")
    parser.add_argument("--problems", type=int, default=4)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--max_tokens", type=int, default=192)
    parser.add_argument("--loop_tokens", type=int, default=0, help="tokens of a solution by the one-token loop; 0: all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(TransformersEngine(arguments.model or tiny_model(Path(folder)), device="cpu"), arguments)


def compare(engine: TransformersEngine, arguments: argparse.Namespace) -> None:
    """Run the three ways and print a row each."""
    if arguments.model:
        shots = list(GSM8K(arguments.data, limit=arguments.shots).problems())
        encoder = SolutionEncoder(engine.tokenizer, Template(), examples=shots)
        problems = GSM8K(arguments.data, start=arguments.shots, limit=arguments.problems).problems()
        prompts = [encoder.prompt(p.problem) for p in problems]
    else:
        prompts = [engine.tokenizer.encode(f"{'1+' * 30}{i}\n") for i in range(arguments.problems)]
    requests = [Request(f"p/{i}", ids, arguments.samples, derive_seed(0, i)) for i, ids in enumerate(prompts)]
    options = SamplingOptions(temperature=0.7, max_tokens=arguments.max_tokens, stop=["\n\n", "Question:"])
    short = replace(options, max_tokens=min(arguments.loop_tokens or options.max_tokens, options.max_tokens))
    print(
        f"{Path(engine.model).name}: {len(prompts)} problems × {arguments.samples} samples of at most "
        f"{options.max_tokens} tokens, prompts of {min(map(len, prompts))} to {max(map(len, prompts))} tokens, "
        f"{torch.get_num_threads()} threads"
    )
    print(f"{'':38}{'rounds':>7}{'requests':>10}{'sampled':>9}{'read':>10}{'CPU s':>9}")
    engine._network  # noqa: B018 - loaded before the clock starts
    expected: dict[int, Drawn] = {}
    for way, limited in [
        (whole_solutions, options), (stop_at_equals, options), (whole_solutions, short), (one_token_a_call, short)
    ]:  # fmt: skip
        counting, start = Counting(engine), time.process_time()
        sampled = way(counting, requests, limited)
        seconds = time.process_time() - start
        name = f"{way.__name__.replace('_', ' ')}, first {limited.max_tokens} tokens"
        row(name, counting.rounds, counting.requests, counting.sampled, counting.read, f"{seconds:9.1f}")
        plain = {k: [replace(c, num_calculator_edits=0) for c in completions] for k, completions in sampled.items()}
        if expected.setdefault(limited.max_tokens, plain) != plain:
            raise SystemExit(f"{way.__name__}: other solutions than those of the way before")
        if way is whole_solutions and limited is options:
            forced = sum(c.num_calculator_edits for completions in sampled.values() for c in completions)
    row("one token a call, counted", *counted(counting, requests, expected[options.max_tokens]), f"{'':9}")
    print(f"values that were put in: {forced}; all ways drew the same solutions")


def row(name: str, calls: int, requests: int, sampled: int, read: int, seconds: str) -> None:
    """One line of the table."""
    print(f"{name:38}{calls:7,}{requests:10,}{sampled:9,}{read:10,}{seconds}", flush=True)


def tiny_model(folder: Path) -> str:
    """A random Llama of width 64 over digits, signs and the brackets of annotations."""
    from tokenizers import Regex, Tokenizer, decoders
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokens = ["<eos>", "<unk>", "\n", "<<", ">>", "=", "+", "-", ".", *"0123456789"]
    inner = Tokenizer(WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<unk>"))
    inner.pre_tokenizer, inner.decoder = Split(Regex(r"<<|>>|[\s\S]"), "isolated"), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", unk_token="<unk>", pad_token="<eos>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.1, bos_token_id=None, eos_token_id=0,
        pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return str(folder)


if __name__ == "__main__":
    main()
