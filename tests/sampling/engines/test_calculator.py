"""The calculator over an engine: correcting whole solutions draws as stopping at every ``=`` does.

Solutions come from a chain: each token's probabilities depend on the token before it alone. Some tokens reach across
the places where the calculator begins and ends (``=2``, ``3>>``), and go on otherwise than the same text in two tokens.
"""

import asyncio
import json
import re
from collections import defaultdict
from fractions import Fraction
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.__main__ import main
from sampling.engines import Completion, Engine, LoadedEngine, Request, SamplingOptions, TransformersEngine, calculator
from sampling.engines.calculator import CalculatorEngine, calculate
from sampling.engines.decode import sample_tokens
from sampling.stages.generate import generate
from stepverify.jsonl import read_records
from stepverify.readers import Reader
from stepverify.records import InputError, Problem, Solution
from stepverify.template import Template
from tests.helpers.engines import complete_all

# ── the chain ─────────────────────────────────────────────────────────────────────────────────────

TOKENS = ["<eos>", "\n", "<<", ">>", "=", "=2", "3>>", "+", "-", ".", *"0123456789"]
ID = {token: i for i, token in enumerate(TOKENS)}
NEXT = {
    "\n": {"<<": 3, "<eos>": 1}, "<<": {"1": 1, "2": 1}, "1": {"+": 2, "=": 1, "=2": 1},
    "2": {">>": 1, "=": 1, "3>>": 1}, "+": {"1": 1, "2": 1}, "=": {"1": 1, "2": 1, "3": 1}, "=2": {">>": 1, "3>>": 1},
    "3": {">>": 3, "+": 1}, ">>": {"\n": 1, "2": 1}, "3>>": {"\n": 1, "<eos>": 3},
}  # fmt: skip


class Pieces:
    """A tokenizer that takes the longest token that fits; the end of sequence is no text."""

    eos_token_id, pad_token_id, bos_token_id, name_or_path = 0, 0, None, "token_texts"

    def __call__(self, text):
        return SimpleNamespace(input_ids=self.encode(text))

    def encode(self, text, add_special_tokens=False):
        return list(self._encode(text))

    @staticmethod
    @cache
    def _encode(text):
        ids = []
        while text:
            piece = max((t for t in TOKENS if text.startswith(t)), key=len)
            ids.append(ID[piece])
            text = text[len(piece) :]
        return ids

    def decode(self, ids, skip_special_tokens=True):
        return "".join(TOKENS[i] for i in ids if i)


def weights(last):
    """(V,) weights of the token after ``last``; what the chain does not know is followed by a line end."""
    row = NEXT.get(TOKENS[last], {"\n": 1})
    return [row.get(token, 0) for token in TOKENS]


def put_in(ids):
    """``ids`` as they go on where the calculator acts at the last one; None where it does not."""
    before, text = Pieces().decode(ids[:-1]), Pieces().decode(ids)
    at = text.find("=", len(before))
    if at < 0:
        return None
    _, begun, expression = text[:at].rpartition("<<")
    if not begun or set(expression) & set("<>=\n") or (value := calculate(expression)) is None:
        return None
    if at + 1 == len(text):
        return ids + Pieces().encode(f"{value}>>")
    return ids[:-1] + Pieces().encode(f"{text[len(before) : at]}={value}>>")


def ended(ids, options, room, since=0):
    """The finished completion that ``ids`` begin with, or None; the first ``since`` tokens are known not to end it."""
    for count in range(since + 1, len(ids) + 1):
        text = Pieces().decode(ids[:count])
        if any(stop in text for stop in options.stop):
            return tuple(ids[:count]), text[: min(text.find(s) for s in options.stop if s in text)], "stop"
        if ids[count - 1] == 0:
            return tuple(ids[:count]), text, "stop"
        if count == room:
            return tuple(ids[:count]), text, "length"
    return None


def stopping_at_every_equals_sign(ids, options, room, choose):
    """One solution, token by token: the definition. ``choose`` draws the token at a position after another one."""
    sampled = []
    while True:
        sampled = [*sampled, choose(ids + sampled, len(sampled))]
        if found := ended(sampled, options, room, len(sampled) - 1):
            return found
        if further := put_in(sampled):
            if found := ended(further, options, room, len(sampled) - 1):
                return found
            sampled = further


# ── the law, exactly ──────────────────────────────────────────────────────────────────────────────


def law(execute):
    """Exact probabilities of the results of ``execute(choose)``: all ways to choose are gone through."""
    found, open_tapes = defaultdict(Fraction), [((), Fraction(1))]
    while open_tapes:
        tape, probability = open_tapes.pop()
        left = iter(tape)

        def choose(ids, _position, left=left, tape=tape, probability=probability):
            if (token := next(left, None)) is not None:
                return token
            row = weights(ids[-1])
            open_tapes.extend(((*tape, t), probability * Fraction(w, sum(row))) for t, w in enumerate(row) if w)
            raise StopAsyncIteration

        try:
            result = execute(choose)
        except StopAsyncIteration:
            continue
        found[result] += probability
    return found


class Choosing(Engine):
    """An engine that samples by ``choose``, every token anew."""

    model, tokenizer = "choosing", Pieces()

    def __init__(self, choose):
        self.choose = choose

    def identity(self):
        return {"engine": "choosing"}

    async def complete(self, request, options):
        return [self._one(request, options) for _ in range(request.n)]

    def _one(self, request, options):
        ids, known = list(request.prefix_ids), 0
        while not (found := ended(ids, options, options.max_tokens, known)):
            known = len(ids)
            ids.append(self.choose(request.prompt_ids + ids, len(ids)))
        return Completion(list(found[0]), *found[1:])


def by_calculator(choose, options):
    c = at_once(CalculatorEngine(Choosing(choose)), options)
    return tuple(c.token_ids), c.text, c.finish


async def one_after_another(works):
    return [await work for work in works]


def at_once(engine, options):
    """One completion, by an engine that never waits: the law goes through thousands of them, without an event loop."""
    try:
        engine.complete(Request("r", [ID["\n"]], 1, 0), options).send(None)
    except StopIteration as ended:
        return ended.value[0]
    raise AssertionError("it waits")


@pytest.mark.parametrize("options", [{"max_tokens": 9}, {"max_tokens": 9, "stop": ["2>>2", "\n<"]}, {"max_tokens": 4}])
def test_the_law_is_that_of_stopping_at_every_equals_sign(options, monkeypatch):
    """Every solution has the same probability, in exact fractions, over all executions of both."""
    monkeypatch.setattr(calculator, "together", one_after_another)
    options = SamplingOptions(temperature=1, **options)
    start = [ID["\n"]]
    expected = law(lambda choose: stopping_at_every_equals_sign(start, options, options.max_tokens, choose))
    assert law(lambda choose: by_calculator(choose, options)) == expected
    assert sum(expected.values()) == 1
    assert len(expected) > (5 if options.max_tokens == 4 else 50)


def test_the_law_differs_where_the_calculator_is_missing(monkeypatch):
    """The comparison above can fail: the chain draws incorrect values, and the same text in other tokens."""
    monkeypatch.setattr(calculator, "together", one_after_another)
    options = SamplingOptions(temperature=1, max_tokens=9)
    plain = law(lambda choose: at_once(Choosing(choose), options).text)
    forced = law(lambda choose: by_calculator(choose, options)[1])
    assert set(plain) - set(forced)
    assert {"<<1+2=3>>", "<<1+1=2>>"} <= {text[:9] for text in forced}
    assert not any("=13" in text for text in forced)


# ── the same solutions, by the embedded engine ────────────────────────────────────────────────────


class Network:
    """The chain as a causal language model."""

    def __init__(self, limit):
        self.device = torch.device("cpu")
        self.config = SimpleNamespace(num_hidden_layers=1, max_position_embeddings=limit)
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
@settings(max_examples=60)
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
