"""Rows that come and go in one cache, and prefixes that are kept from call to call: nothing else changes."""

import asyncio
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PretrainedConfig

from sampling.engines import LoadedEngine, Request, SamplingOptions, TransformersEngine
from sampling.engines.base import Usage
from sampling.engines.cache import Rows
from sampling.engines.decode import Decoder
from sampling.engines.token_sampling import sample_tokens
from stepverify.records import InputError
from tests.helpers.engines import CodePoints, complete

TOKEN = 2 * 8  # bytes of a token: its id as key and its position as value, in float64
VOCABULARY = 6
STOP, END = 4, 5
OPTIONS = SamplingOptions(temperature=1.0, max_tokens=12, stop=[chr(STOP)])


class Letters(CodePoints):
    """Tokens 1 to 4 are characters, 5 ends a completion; 4 is the stop text."""

    eos_token_id, pad_token_id = END, 0

    def decode(self, ids, skip_special_tokens=False):
        return "".join(chr(i) for i in ids if i != END)


def logits_after(ids):
    """Next-token logits that depend on every token and its place."""
    number = 17
    for place, token in enumerate(ids):
        number = (number * 1_000_003 + (place + 1) * (token + 7)) % (1 << 40)
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
    return logits.index_fill(0, torch.tensor([0]), float("-inf"))


class Historian:
    """A network that knows the past only by its keys and values: they are the token ids and their positions."""

    device = torch.device("cpu")
    config = PretrainedConfig(num_hidden_layers=2, max_position_embeddings=64)
    generation_config = SimpleNamespace(eos_token_id=END)

    def __init__(self):
        self.computed = self.passes = self.widest = 0

    def __call__(self, *, input_ids, attention_mask, position_ids, past_key_values, use_cache, logits_to_keep):
        before = past_key_values.get_seq_length()
        for layer in range(2):
            keys, values = (x[:, None, :, None].double() + layer for x in (input_ids, position_ids))
            keys, values = past_key_values.update(keys, values, layer)
        assert attention_mask.shape == (len(input_ids), before + input_ids.shape[1]) == keys.shape[::2]
        self.computed, self.passes = self.computed + input_ids.numel(), self.passes + 1
        self.widest = max(self.widest, len(input_ids))
        rows = []
        for ids, positions, own in zip(keys[:, 0, :, 0] - 1, values[:, 0, :, 0] - 1, attention_mask, strict=True):
            assert positions[own].tolist() == list(range(int(own.sum())))
            rows.append(logits_after(ids[own].long().tolist()))
        return SimpleNamespace(logits=torch.stack(rows)[:, None])


class Keeping(LoadedEngine):
    """An engine over the historian with a prefix cache of some tokens."""

    def __init__(self, batch_size, tokens):
        super().__init__(Historian(), Letters(), batch_size=batch_size, in_thread=False)
        self.tokens, self.usage = tokens, Usage()

    def _load(self):
        return Decoder(self.network, self.tokenizer, {END}, self.batch_size, True, 2 * TOKEN * self.tokens, self.usage)


def wanted(request):
    """What one completion after the other gives, each token from the whole history."""
    found = []
    for i in range(request.n):
        ids, finish = list(request.prefix_ids), "length"
        while len(ids) < OPTIONS.max_tokens:
            logits, seed = logits_after(request.prompt_ids + ids)[None].float(), torch.tensor([request.seed + i])
            ids.append(int(sample_tokens(logits, seed, len(ids), OPTIONS)))
            if ids[-1] in (STOP, END):
                finish = "stop"
                break
        found.append((ids, finish))
    return found


async def explore(engine, prompts, depth, width):
    """Each prompt, and then what a stop text ended, continued like a search does; requests with completions."""
    asked = []

    async def one(request, left):
        asked.append((request, await engine.complete(request, OPTIONS)))
        going_on = [c.token_ids for c in asked[-1][1] if c.token_ids[-1] == STOP] if left else []
        await asyncio.gather(
            *(one(Request(f"{request.key}.{i}", request.prompt_ids + ids, width, request.seed + 1000 * (i + 1)), left - 1)
              for i, ids in enumerate(going_on))
        )  # fmt: skip

    await asyncio.gather(*(one(Request(f"{i}", prompt, width, i), depth) for i, prompt in enumerate(prompts)))
    await engine.aclose()
    return asked


tokens = st.integers(1, VOCABULARY - 2)


@settings(deadline=None, max_examples=12)
@given(
    prompts=st.lists(st.lists(tokens, min_size=1, max_size=6), min_size=1, max_size=6),
    batch_size=st.sampled_from([1, 3, 8, 64]), kept=st.sampled_from([0, 20, 100_000]), width=st.integers(1, 5),
)  # fmt: skip
def test_no_batch_and_no_kept_prefix_changes_a_completion(prompts, batch_size, kept, width):
    """Against one completion after the other; a historian that saw a wrong row would continue with other tokens.

    More completions than there are places begin in several parts. No more rows than places are sampled together.
    """
    engine = Keeping(batch_size, kept)
    asked = asyncio.run(explore(engine, prompts, depth=2, width=width))
    for request, completions in asked:
        assert [(c.token_ids, c.finish) for c in completions] == wanted(request)
    assert engine.network.widest <= batch_size
    assert engine.usage.prompt_tokens == sum(len(r.prompt_ids) * r.n for r, _ in asked)


def test_a_continuation_reads_one_token():
    """A prompt of 3 tokens, two completions that are continued: each has read its prompt but for the last token.

    Computed: the prompt once, every sampled token but the final ones, and the last token of each continued prompt.
    """
    engine = Keeping(8, 100_000)
    first = Request("a", [1, 2, 3], 2, 4)
    (found,) = complete(engine, [first], **vars(OPTIONS)).values()
    lengths = [len(c.token_ids) for c in found]
    assert [c.token_ids[-1] for c in found] == [STOP, STOP]
    assert lengths[0] != lengths[1]
    assert engine.network.computed == 3 + sum(lengths) - 2
    assert engine.usage == Usage(prompt_tokens=6, cached_tokens=3)  # the second completion reads no prompt
    before, continued = (
        engine.network.computed,
        [Request(f"{i}", [1, 2, 3, *c.token_ids], 3, i) for i, c in enumerate(found)],
    )
    again = complete(engine, continued, **vars(OPTIONS))
    sampled = sum(len(c.token_ids) - 1 for group in again.values() for c in group)
    assert engine.network.computed - before == 2 + sampled
    read = sum(len(r.prompt_ids) for r in continued)
    assert (engine.usage.prompt_tokens, engine.usage.cached_tokens) == (6 + 3 * read, 3 + 3 * read - 2)


def test_what_has_ended_is_not_kept():
    """Nothing follows the end of a completion, or its token limit: of all that is sampled the prompt alone stays."""
    engine = Keeping(8, 100_000)
    options = SamplingOptions(temperature=1.0, max_tokens=4)
    found = asyncio.run(_complete(engine, Request("a", [1, 2, 3], 8, 0), options))
    assert {c.finish for c in found} == {"stop", "length"}
    assert engine._pump._core.prefixes._cache.num_tokens == 3


async def _complete(engine, request, options):
    try:
        return await engine.complete(request, options)
    finally:
        await engine.aclose()


def test_long_and_short_prompts_are_read_apart():
    """Prompts of 9, 8 and 2 tokens: 2 × 9 and 2 tokens are computed, not 3 × 9."""
    engine = Keeping(8, 0)
    prompts = [[1] * 9, [2] * 8, [3] * 2]
    complete(engine, [Request(f"{i}", p, 1, 0) for i, p in enumerate(prompts)], temperature=1.0, max_tokens=1)
    assert (engine.network.computed, engine.network.passes) == (2 * 9 + 2, 2)


@settings(deadline=None, max_examples=12)
@given(
    st.lists(st.one_of(st.none(), st.integers(0, 50), st.lists(st.integers(1, 5), min_size=1, max_size=3)), max_size=30)
)
def test_rows_keep_their_own_tokens(actions):
    """A list adds rows of these lengths, None adds a token to each row, a number removes every row that it divides.

    Expected are lists of numbers, none of which occurs twice.
    """
    kept, expected, used = Rows(1), [], 0
    for action in [[2], *actions, None]:
        if isinstance(action, list):
            width = max(action)
            rows = [list(range(used + 10 * i, used + 10 * i + length)) for i, length in enumerate(action)]
            used += 10 * len(rows)
            keys = torch.tensor([[-1] * (width - len(row)) + row for row in rows]).double()[:, None, :, None]
            kept.add([(keys, -keys)], keys[:, 0, :, 0] >= 0, torch.arange(len(rows)), action)
            expected += rows
        elif action is None:
            if not expected:
                continue
            mask, new = kept.begin_column(), torch.arange(used, used + len(expected))
            keys, values = kept.cache.update(*(x.double()[:, None, None, None] for x in (new, -new)), 0)
            assert mask.shape == keys.shape[::2]
            assert [row[own].long().tolist() for row, own in zip(keys[:, 0, :, 0], mask, strict=True)] == [
                [*row, used + i] for i, row in enumerate(expected)
            ]
            assert torch.equal(values, -keys)
            assert kept.cache.get_seq_length() == mask.shape[1] == max(map(len, expected)) + 1
            kept.end_column()
            expected, used = [[*row, used + i] for i, row in enumerate(expected)], used + len(expected)
        else:
            gone = [i for i in range(len(expected)) if i % (action + 1) == 0]
            left = len(expected) - len(gone)
            to, of = [i for i in gone if i < left], [i for i in range(left, len(expected)) if i not in gone]
            kept.remove(torch.tensor(to, dtype=torch.long), torch.tensor(of, dtype=torch.long), left)
            for target, source in zip(to, of, strict=True):
                expected[target] = expected[source]
            del expected[left:]
        ((keys, _),) = kept.states()
        ends = [keys[i, 0, -len(row) :, 0].long().tolist() for i, row in enumerate(expected)]
        assert ends == expected


@pytest.mark.parametrize("window", [None, 6])
def test_models_with_and_without_a_sliding_window(tmp_path, tokenizer, window):
    """Continued three times, with and without kept prefixes: equal tokens, and those of a whole prompt read alone."""
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=window, max_position_embeddings=128,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MistralForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    keeps, reads = (TransformersEngine(str(tmp_path), device="cpu", prefix_cache_gib=gib) for gib in (0.1, 0))
    assert (keeps.caches_prefixes, reads.caches_prefixes) == (True, False)
    stop = ["a", "b", "0", "1", "=", "+"]
    prompts = {str(i): tokenizer.encode("1 + 2 \n " * (i + 1)) for i in range(3)}
    for seed in range(3):
        requests = [Request(key, ids, 3, seed) for key, ids in prompts.items()]
        found = complete(keeps, requests, stop=stop, max_tokens=20)
        assert found == complete(reads, requests, stop=stop, max_tokens=20)
        alone = complete(reads, requests[1:2], stop=stop, max_tokens=20)
        assert alone["1"] == found["1"]
        prompts = {key: prompts[key] + max((c.token_ids for c in found[key]), key=len) for key in prompts}
    assert keeps.usage.cached_tokens > reads.usage.cached_tokens


@pytest.mark.parametrize("gib", [-1, float("inf"), float("nan")])
def test_an_impossible_size_is_refused(gib):
    with pytest.raises(InputError, match=r"^prefix_cache_gib: expected 0 or more, or null, got "):
        TransformersEngine("anywhere", prefix_cache_gib=gib)
