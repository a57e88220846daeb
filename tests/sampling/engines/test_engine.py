"""The embedded engine: the numbers it draws with, the loop around them, and what a batch must not change."""

import asyncio
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from transformers import PretrainedConfig

from sampling.engines import Engine, LoadedEngine, Request, SamplingOptions, TransformersEngine, VllmEngine
from stepverify.records import InputError
from tests.helpers.engines import PROBLEMS, complete, complete_all

# ── the loop, over a network of which every next token is known ───────────────────────────────────


@pytest.fixture(scope="module")
def words(base):
    """The quickstart's word-level tokenizer, as tokenizer.json has it."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(str(base))


class Chain:
    """A network in which each token has one possible successor, given as a text of different tokens."""

    def __init__(self, tokenizer, text, max_position_embeddings=256):
        ids = [*tokenizer.encode(text), tokenizer.eos_token_id]
        assert len(set(ids)) == len(ids)
        self.after = dict(pairwise(ids))
        self.vocab_size, self.device = len(tokenizer), torch.device("cpu")
        self.config = PretrainedConfig(num_hidden_layers=1, max_position_embeddings=max_position_embeddings)
        self.generation_config = SimpleNamespace(eos_token_id=tokenizer.eos_token_id)
        self.batch_sizes = []

    def __call__(self, *, input_ids, attention_mask, position_ids, past_key_values, use_cache, logits_to_keep):
        nothing = torch.zeros(len(input_ids), 1, input_ids.shape[1], 1)
        past_key_values.update(nothing, nothing, 0)
        # The mask covers what was read; the position of a token is the number of tokens before it.
        assert attention_mask.shape == (len(input_ids), past_key_values.get_seq_length())
        counted = (attention_mask.sum(1) - 1).tolist()
        assert position_ids[:, -1].tolist() == counted
        self.batch_sizes.append(len(input_ids))
        logits = torch.zeros(len(input_ids), 1, self.vocab_size)
        for row, last in enumerate(input_ids[:, -1].tolist()):
            logits[row, 0, self.after.get(last, 0)] = 9
        return SimpleNamespace(logits=logits)


TEXT = "a = 1 \n b + 2 #### 3"


def run_chain(tokenizer, prompts, text=TEXT, limit=256, batch_size=256, **options):
    """Completions of prompts that end in a token of the chain, and the network that sampled them."""
    network = Chain(tokenizer, text, limit)
    engine = LoadedEngine(network, tokenizer, batch_size=batch_size, in_thread=False)
    requests = [Request(p, tokenizer.encode(p), 1, 0) for p in prompts]
    found = complete_all(engine, requests, SamplingOptions(temperature=0, **options))
    return [c for p in prompts for c in found[p]], network


@pytest.mark.parametrize(
    ("options", "sampled", "text", "finish"),
    [
        # the end-of-sequence token is sampled, and no text
        ({}, "= 1 \n b + 2 #### 3 <eos>", "= 1 \n b + 2 #### 3", "stop"),
        ({"max_tokens": 9}, "= 1 \n b + 2 #### 3 <eos>", "= 1 \n b + 2 #### 3", "stop"),
        ({"max_tokens": 8}, "= 1 \n b + 2 #### 3", "= 1 \n b + 2 #### 3", "length"),
        ({"max_tokens": 1}, "=", "=", "length"),
        # a stop text is cut out of the text, the ids stay as they were sampled
        ({"stop": ["####"]}, "= 1 \n b + 2 ####", "= 1 \n b + 2 ", "stop"),
        ({"stop": ["b + 2"]}, "= 1 \n b + 2", "= 1 \n ", "stop"),
        ({"stop": ["3", "\n"]}, "= 1 \n", "= 1 ", "stop"),
        ({"stop": ["none"]}, "= 1 \n b + 2 #### 3 <eos>", "= 1 \n b + 2 #### 3", "stop"),
        ({"stop": ["####"], "max_tokens": 7}, "= 1 \n b + 2 ####", "= 1 \n b + 2 ", "stop"),
        ({"stop": ["####"], "max_tokens": 6}, "= 1 \n b + 2", "= 1 \n b + 2", "length"),
    ],
)
def test_how_a_completion_ends(words, options, sampled, text, finish):
    (completion,), _ = run_chain(words, ["a"], **options)
    assert completion.token_ids == words.encode(sampled)
    assert (completion.text, completion.finish) == (text, finish)


def test_a_stop_id_ends_a_completion_and_is_no_text(words):
    (completion,), _ = run_chain(words, ["a"], stop_ids=words.encode("#### b"))
    assert completion.token_ids == words.encode("= 1 \n b")
    assert (completion.text, completion.finish) == ("= 1 \n", "stop")


def test_a_stop_text_of_many_tokens_is_found(words):
    """20 tokens in one stop text: more than are usually looked back at."""
    letters = "a b c d e f g h i j 0 1 2 3 4 5 6 7 8 9"
    (completion,), _ = run_chain(words, ["?"], text=f"? {letters} 10 ;", stop=[letters])
    assert completion.token_ids == words.encode(letters)
    assert (completion.text, completion.finish) == ("", "stop")


def test_rows_that_end_early_leave_the_batch_and_change_nothing(words):
    """Prompts that end in the chain's tokens need 9, 8, ..., 1 tokens: after each token one row less is computed."""
    tokens = TEXT.split(" ")
    (*together,), network = run_chain(words, tokens)
    assert network.batch_sizes == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    for i, (token, completion) in enumerate(zip(tokens, together, strict=True)):
        assert completion.token_ids == words.encode(" ".join([*tokens[i + 1 :], "<eos>"]))
        assert run_chain(words, [token])[0] == [completion]


def test_places_that_become_free_are_taken(words):
    """Eight places. ``a`` needs 9 tokens, the others of the first eight 2: it alone is left after them.

    Then seven more begin beside it, which need 5, 5, 5, 4, 1, 1, 1 tokens, and neither waits for the other.
    """
    tokens = ["a", *["####"] * 7, *["b", "b", "b", "+", "3", "3", "3"]]
    network = Chain(words, TEXT)
    engine = LoadedEngine(network, words, batch_size=8, in_thread=False)
    requests = [Request(f"{i}", words.encode(token), 1, 0) for i, token in enumerate(tokens)]
    found = complete_all(engine, requests, SamplingOptions(temperature=0))
    for i, token in enumerate(tokens):
        expected = TEXT.split(" ")[TEXT.split(" ").index(token) + 1 :]
        assert found[f"{i}"][0].token_ids == words.encode(" ".join([*expected, "<eos>"]))
    # Eight prompts and a token of each; seven prompts, of which three end with their first token; ``a`` and four more
    # go on, until the ``+`` ends after its fourth token, and the ``b`` after their fifth.
    assert network.batch_sizes == [8, 8, 7, 5, 5, 5, 4, 1, 1, 1]


def test_batches_of_different_age_become_one(words):
    """Twenty long completions in places for eight, each begun when the others are at another token."""
    texts = TEXT.split(" ")
    tokens = [texts[i % 3] for i in range(20)]
    network = Chain(words, TEXT)
    engine = LoadedEngine(network, words, batch_size=8, in_thread=False)
    requests = [Request(f"{i}", words.encode("? " * (i % 5) + token), 1, 0) for i, token in enumerate(tokens)]
    found = complete_all(engine, requests, SamplingOptions(temperature=0))
    for i, token in enumerate(tokens):
        assert found[f"{i}"][0].token_ids == words.encode(" ".join([*texts[texts.index(token) + 1 :], "<eos>"]))
    assert max(network.batch_sizes) <= 8


@pytest.mark.parametrize("in_thread", [True, False])
def test_other_options_have_their_turn(words, in_thread):
    """Requests of two ways of sampling wait at the same time; neither changes the other's completions."""
    engine = LoadedEngine(Chain(words, TEXT), words, batch_size=4, in_thread=in_thread)
    ways = [SamplingOptions(temperature=0), SamplingOptions(temperature=0, max_tokens=2)]

    async def every():
        calls = [engine.complete(Request(f"{i}", words.encode("a"), 1, 0), ways[i % 2]) for i in range(20)]
        found = await asyncio.gather(*calls)
        await engine.aclose()
        return found

    found = asyncio.run(every())
    assert {len(c.token_ids) for (c,) in found[::2]} == {9}
    assert {len(c.token_ids) for (c,) in found[1::2]} == {2}


def test_a_long_prompt_does_not_shorten_its_neighbours(words):
    """A context of 8 tokens leaves 7 of the 9 for a prompt of one token, and one for a prompt of seven."""
    (short, long), _ = run_chain(words, ["a", "? ? ? ? ? ? a"], limit=8)
    assert short.token_ids == words.encode("= 1 \n b + 2 ####")
    assert long.token_ids == words.encode("=")
    assert short.finish == long.finish == "length"


@pytest.mark.parametrize("length", [8, 9])
def test_a_prompt_that_fills_the_context_is_refused(words, length):
    with pytest.raises(InputError, match=f"the prompt has {length} tokens, the engine takes 8"):
        run_chain(words, ["a", " ".join("?" * length)], limit=8)


# ── the engine, over a real (random) network ──────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def engine(tiny_model_dir):
    return TransformersEngine(str(tiny_model_dir), device="cpu", batch_size=8)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return [tokenizer.encode(problem + "\n") for problem in PROBLEMS]


def test_engines_keep_the_protocol(engine):
    assert isinstance(engine, Engine)
    assert isinstance(VllmEngine(engine.model), Engine)
    assert engine.identity() == {"engine": "transformers", "model": engine.model, "dtype": "float32"}


@pytest.mark.parametrize("extra_end", [None, "b", "\n"])
def test_greedy_equals_transformers_generate(engine, prompts, tokenizer, extra_end):
    """Left-padded prompts of different lengths; further ends make rows leave at different times."""
    assert len({len(p) for p in prompts}) >= 3
    ends = [tokenizer.eos_token_id, *(tokenizer.encode(extra_end) if extra_end else [])]
    length = max(map(len, prompts))
    padded = torch.tensor([[tokenizer.pad_token_id] * (length - len(p)) + p for p in prompts])
    theirs = engine._network.generate(
        padded, attention_mask=padded != tokenizer.pad_token_id, do_sample=False, max_new_tokens=60,
        eos_token_id=ends, pad_token_id=tokenizer.pad_token_id,
    )[:, length:].tolist()  # fmt: skip
    requests = [Request(str(i), p, 2, i) for i, p in enumerate(prompts)]
    ours = complete(engine, requests, temperature=0, max_tokens=60, stop_ids=ends[1:])
    for i, row in enumerate(theirs):
        end = next((at + 1 for at, token in enumerate(row) if token in ends), 60)
        assert [c.token_ids for c in ours[str(i)]] == [row[:end]] * 2
        assert {c.finish for c in ours[str(i)]} == {"stop" if row[end - 1] in ends else "length"}


def test_a_sample_does_not_depend_on_its_batch(engine, prompts):
    """Alone, in batches of other sizes, in another order, with fewer or more samples: the same completions.

    Rows end at many different lengths, so they are compacted at different times too.
    """
    requests = [Request(str(i), p, 4, 100 + 1000 * i) for i, p in enumerate(prompts)]
    expected = complete(engine, requests)
    lengths = {len(c.token_ids) for sampled in expected.values() for c in sampled}
    assert len(lengths) > 4
    assert {c.finish for sampled in expected.values() for c in sampled} == {"stop", "length"}
    for request in requests[:2]:
        assert complete(engine, [request]) == {request.key: expected[request.key]}
    for batch_size in (1, 5, 1000):
        other = TransformersEngine(engine.model, device="cpu", batch_size=batch_size)
        assert complete(other, reversed(requests)) == expected
    for n in (1, 7):
        again = complete(engine, [Request(r.key, r.prompt_ids, n, r.seed) for r in requests])
        assert {key: sampled[:4] for key, sampled in again.items()} == {
            k: sampled[:n] for k, sampled in expected.items()
        }


def test_completion_i_is_drawn_with_seed_plus_i(engine, prompts):
    together = complete(engine, [Request("all", prompts[1], 5, 77)])["all"]
    singly = complete(engine, [Request(str(i), prompts[1], 1, 77 + i) for i in range(5)])
    assert together == [singly[str(i)][0] for i in range(5)]
    assert len({tuple(c.token_ids) for c in together}) == 5


def test_seed_temperature_and_top_k_change_what_is_sampled(engine, prompts):
    base = complete(engine, [Request("r", prompts[0], 3, 5)])
    assert complete(engine, [Request("r", prompts[0], 3, 5)]) == base
    assert complete(engine, [Request("r", prompts[0], 3, 50)]) != base
    for changed in ({"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.5}, {"max_tokens": 5}, {"stop": ["\n"]}):
        assert complete(engine, [Request("r", prompts[0], 3, 5)], **changed) != base


def test_more_than_the_window_is_sampled_whole(tiny_model_dir, prompts):
    """Batches of 2 are sorted in windows of 16 completions: 50 requests of one go through four windows."""
    engine, asked = TransformersEngine(str(tiny_model_dir), device="cpu", batch_size=2), []

    def stream():
        for i in range(50):
            asked.append(i)
            yield Request(str(i), prompts[i % 4], 1, i)

    options = SamplingOptions(temperature=1.0, max_tokens=3)
    found = complete_all(engine, stream(), options, max_in_work=engine.capacity)
    assert len(found) == len(asked) == 50
    assert found["49"] == complete(engine, [Request("49", prompts[1], 1, 49)], max_tokens=3)["49"]


def test_a_prompt_longer_than_the_context_is_refused(engine, prompts):
    much = (prompts[0] * 60)[:300]
    with pytest.raises(InputError, match="much: the prompt has 300 tokens, the engine takes 256"):
        complete(engine, [Request("few", prompts[0], 1, 0), Request("much", much, 1, 0)])


def test_models_that_are_none(tmp_path, base):
    with pytest.raises(InputError, match="no such model folder"):
        TransformersEngine("./nowhere").tokenizer  # noqa: B018
    with pytest.raises(InputError, match="no tokenizer"):
        TransformersEngine(str(tmp_path)).tokenizer  # noqa: B018
    with pytest.raises(InputError, match="no causal language model could be loaded"):
        complete(TransformersEngine(str(base)), [Request("r", [1], 1, 0)])


def test_without_vllm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match=r"install stepverify\[vllm\]"):
        complete(VllmEngine("anywhere"), [Request("r", [1], 1, 0)])
