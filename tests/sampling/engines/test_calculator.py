"""The calculator over an engine: correcting whole solutions draws as stopping at every ``=`` does.

Solutions come from a chain: each token's probabilities depend on the token before it alone. Some tokens reach across
the places where the calculator begins and ends (``=2``, ``3>>``), and go on otherwise than the same text in two tokens.
"""

import asyncio
import json
import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PretrainedConfig

from sampling.__main__ import main
from sampling.engines import Completion, Engine, LoadedEngine, Request, SamplingOptions, TransformersEngine
from sampling.engines.calculator import CalculatorEngine, calculate
from sampling.engines.token_sampling import sample_tokens
from sampling.stages.generate import generate
from stepverify.jsonl import read_records
from stepverify.readers import Reader
from stepverify.records import InputError, Problem, Solution
from stepverify.template import Template
from tests.helpers.chain import (
    ID,
    Choosing,
    Pieces,
    stopping_at_every_equals_sign,
    weights,
)
from tests.helpers.engines import complete_all

# ── the same solutions, by the embedded engine ────────────────────────────────────────────────────


class Network:
    """The chain as a causal language model."""

    def __init__(self, limit):
        self.device = torch.device("cpu")
        self.config = PretrainedConfig(num_hidden_layers=1, max_position_embeddings=limit)
        self.generation_config = SimpleNamespace(eos_token_id=0)
        self.read = 0

    def __call__(self, *, input_ids, attention_mask, position_ids, past_key_values, use_cache, logits_to_keep):
        nothing = torch.zeros(len(input_ids), 1, input_ids.shape[1], 1)
        past_key_values.update(nothing, nothing, 0)
        self.read += input_ids.numel()
        rows = [weights(last) for last in input_ids[:, -1].tolist()]
        return SimpleNamespace(logits=torch.tensor(rows)[:, None].float().log())


def embedded(batch_size=8, limit=1 << 20):
    return LoadedEngine(Network(limit), Pieces(), "chain", batch_size, in_thread=False)


def token_by_token(request, index, options, limit):
    def choose(ids, position):
        logits = torch.tensor([weights(ids[-1])]).float().log()
        return int(sample_tokens(logits, torch.tensor([request.seed + index]), position, options))

    room = min(options.max_tokens, limit - len(request.prompt_ids))
    return stopping_at_every_equals_sign(request.prompt_ids, options, room, choose)


def plain(completions):
    return [(tuple(c.token_ids), c.text, c.finish) for c in completions]


@given(
    seed=st.integers(0, 2**62),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    max_tokens=st.integers(1, 40),
    stop=st.lists(
        st.sampled_from(["3", ">>\n", "\n<<2", "=3>>2", "2>>2", ">>", "=", "+1=2", "<<2=2>>\n<<1"]), max_size=2
    ),
    batch_size=st.integers(1, 9),
    limit=st.sampled_from([6, 17, 1000]),
)
@settings(max_examples=25)
def test_each_solution_is_the_one_drawn_token_by_token(seed, sizes, max_tokens, stop, batch_size, limit):
    """Whatever the seed, stop texts, length, context and batch: ids, text and end are the same, not just the law."""
    options = SamplingOptions(temperature=1, max_tokens=max_tokens, stop=stop)
    requests = [Request(str(i), [ID["1"]] * i + [ID["\n"]], n, seed + 1000 * i) for i, n in enumerate(sizes)]
    sampled = complete_all(CalculatorEngine(embedded(batch_size, limit)), requests, options)
    for request in requests:
        assert plain(sampled[request.key]) == [token_by_token(request, i, options, limit) for i in range(request.n)]


def one(engine, n=200, seed=7, prompt=None, **options):
    options = SamplingOptions(temperature=1, **{"max_tokens": 40} | options)
    return complete_all(engine, [Request("r", prompt or [ID["\n"]], n, seed)], options)["r"]


def test_every_value_is_the_calculators_and_forced_counts_the_changes():
    plainly, corrected = one(embedded()), one(CalculatorEngine(embedded()))
    for c in corrected:
        for expression, value in re.findall(r"<<([^<>=\n]*)=([^<>=\n]*)>>", c.text):
            assert calculate(expression) in (value, None)
    incorrect = [
        any(calculate(e) not in (v, None) for e, v in re.findall(r"<<([^<>=\n]*)=([^<>=\n]*)>>", c.text))
        for c in plainly
    ]
    assert sum(incorrect) > 50
    assert all(c.num_calculator_edits for c, was_incorrect in zip(corrected, incorrect, strict=True) if was_incorrect)
    same = [
        c for c, p in zip(corrected, plainly, strict=True) if not c.num_calculator_edits and plain([c]) == plain([p])
    ]
    assert len(same) == sum(not c.num_calculator_edits for c in corrected) > 10


def test_corrected_solutions_join_what_is_running():
    """A request whose values are all corrected asks again while another one is still being sampled."""
    order = []

    class Slow(Choosing):
        async def complete(self, request, options):
            order.append(request.key.partition("\x1e")[0])
            if request.key == "slow":
                while order.count("quick") < 3:
                    await asyncio.sleep(0)
            return [Completion(ids := request.prefix_ids or [*Pieces().encode("<<1+1=3>>\n<<1+2=2>>\n"), 0],
                               Pieces().decode(ids), "stop")]  # fmt: skip

    class Again(Slow):
        async def complete(self, request, options):
            (c,) = await super().complete(request, options)
            if request.prefix_ids and len(request.prefix_ids) < 10:
                ids = [*request.prefix_ids, *Pieces().encode("\n<<1+2=2>>\n"), 0]
                c = Completion(ids, Pieces().decode(ids), "stop")
            return [c]

    requests = [Request("slow", [ID["\n"]], 1, 0), Request("quick", [ID["\n"]], 1, 0)]
    found = complete_all(CalculatorEngine(Again(None)), requests, SamplingOptions(max_tokens=40))
    assert [*found] == ["quick", "slow"]
    assert {c.num_calculator_edits for (c,) in found.values()} == {2}
    assert {c.text for (c,) in found.values()} == {"<<1+1=2>>\n<<1+2=3>>"}


def test_a_prefix_is_part_of_the_completion():
    """Continuing a completion at any place gives the whole: positions keep their random numbers."""
    engine = embedded()
    for c in one(engine, n=5, stop=["\n<<2"]):
        index = one(engine, n=5, stop=["\n<<2"]).index(c)
        for cut in range(len(c.token_ids)):
            request = Request("r", [ID["\n"]], 1, 7 + index, c.token_ids[:cut])
            options = SamplingOptions(temperature=1, max_tokens=40, stop=["\n<<2"])
            assert complete_all(engine, [request], options) == {"r": [c]}


def test_a_tokenizer_that_cannot_write_annotations_is_refused(tiny_model_dir):
    engine = CalculatorEngine(TransformersEngine(str(tiny_model_dir), device="cpu"))
    with pytest.raises(InputError, match=r"its tokenizer cannot encode '<<1-2.5=-1.5>>'"):
        complete_all(engine, [Request("r", [5], 1, 0)], SamplingOptions())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2-135m", "qwen2.5-coder-0.5b"])
def test_real_tokenizers_at_the_seam(models_folder, name):
    """Annotations as a tokenizer writes them are left alone; others become the text with the correct value.

    ``=-`` and ``=.`` are one token, ``>>`` with the line end too in Qwen's.
    """
    from stepverify.data.encode import load_tokenizer

    shared = load_tokenizer(str(models_folder / name))
    texts = ["so $<<48/2=24>>24 it.", "<<1-2.5=-1.5>>-1.5", "<<1-.5=.5>>.5 é", "a <<2*3=6>>6\nb <<6*2=12>>12"]
    incorrect = ["so $<<48/2=23>>23 it.", "<<1-2.5=1.5>>1", "<<1-.5=-.5>>", "a <<2*3=6>>6\nb <<6*2=2>>"]

    class Given(Engine):
        model, tokenizer = "given", shared

        def __init__(self, text):
            self.ids, self.asked = shared.encode(text), []

        def identity(self):
            return {"engine": "given"}

        async def complete(self, request, options):
            self.asked.append(request)
            ids = request.prefix_ids or self.ids
            return [Completion(ids, shared.decode(ids), "stop")]

    for correct, text in zip(texts, incorrect, strict=True):
        engine = Given(correct)
        (c,) = one(CalculatorEngine(engine), n=1)
        assert (c.token_ids, c.num_calculator_edits, len(engine.asked)) == (engine.ids, 0, 1)
        engine = Given(text)
        (c,) = one(CalculatorEngine(engine), n=1)
        assert (c.text, c.num_calculator_edits) == (correct[: correct.rindex(">>") + 2], 1)


# ── as a stage ────────────────────────────────────────────────────────────────────────────────────


class Lines(Reader):
    def problems(self):
        for i in range(1, 6):
            yield Problem(id=f"p/{i}", problem=str(i), answer="1")


def run(output, engine, num_samples=6):
    options = SamplingOptions(temperature=1, max_tokens=40)
    generate(engine, Lines(), output, num_samples, options, template=Template(prompt="{problem}\n"))
    return {s.id: s for s in read_records(output, Solution)}


@given(gone=st.sets(st.integers(0, 29), min_size=1), batch_size=st.integers(1, 9))
@settings(max_examples=15)
def test_a_resumed_run_draws_the_same(tmp_path_factory, gone, batch_size):
    """Whichever lines a kill took: the same solutions come back, corrections and their counts included."""
    output = tmp_path_factory.mktemp("resume") / "o"
    whole = run(output, CalculatorEngine(embedded()))
    assert any(s.num_calculator_edits for s in whole.values())
    shard, manifest = output / "part-00000.jsonl", output / "manifest.json"
    lines = shard.read_text().splitlines(keepends=True)
    shard.write_text("".join(line for i, line in enumerate(lines) if i not in gone))
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"finished": False, "summary": {}}))
    assert run(output, CalculatorEngine(embedded(batch_size))) == whole


def test_the_manifest_tells_a_calculator_from_none(tmp_path):
    engine = CalculatorEngine(embedded())
    assert isinstance(engine, Engine)
    assert engine.identity() == {"engine": "loaded", "model": "chain", "calculator": True}
    run(tmp_path / "o", engine)
    with pytest.raises(InputError, match=r"config.engine.calculator"):
        run(tmp_path / "o", embedded())


def test_the_program_takes_an_engine_within_an_engine(tiny_model_dir, tmp_path, capsys):
    """The quickstart's tokenizer has no ``<``: the error proves that the calculator was asked."""
    config = tmp_path / "g.yaml"
    config.write_text(f"""
engine:
  class_path: sampling.engines.calculator.CalculatorEngine
  init_args:
    engine:
      class_path: sampling.engines.TransformersEngine
      init_args: {{ model: {tiny_model_dir}, device: cpu }}
problems:
  class_path: stepverify.readers.Synthetic
  init_args: {{ split: train, num_problems: 2, worked: false }}
output: {tmp_path}/o
""")
    with pytest.raises(SystemExit):
        main(["generate", "--config", str(config)])
    assert "its tokenizer cannot encode '<<1-2.5=-1.5>>'" in capsys.readouterr().err
