"""The engine over an OpenAI-compatible endpoint, against a server on loopback that answers by the embedded engine."""

import asyncio
import threading
import time
from contextlib import aclosing

import pytest

from sampling.engines import Completion, Engine, Request, SamplingOptions, TransformersEngine
from sampling.engines.base import GOLDEN
from sampling.runtime.progress import Progress
from sampling.runtime.scheduler import run_all
from stepverify.records import InputError
from tests.helpers.endpoints import by_number, choice, requests, sampled, serving
from tests.helpers.engines import PROBLEMS, complete, complete_all

pytest.importorskip("openai", reason="OpenAI's client is not installed: install stepverify[server]")


@pytest.fixture(scope="module")
def embedded(tiny_model_dir):
    return TransformersEngine(str(tiny_model_dir), device="cpu", batch_size=8)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return [tokenizer.encode(problem + "\n") for problem in PROBLEMS]


@pytest.fixture(scope="module")
def served(embedded):
    """The embedded engine after an endpoint, as vLLM answers."""
    lock = threading.Lock()

    def draws(body):
        options = SamplingOptions(
            temperature=body["temperature"], top_p=body["top_p"], top_k=body["top_k"], max_tokens=body["max_tokens"],
            stop=body["stop"], stop_ids=body["stop_token_ids"],
        )  # fmt: skip
        with lock:
            ((c,),) = complete_all(embedded, [Request("r", body["prompt"], 1, body["seed"])], options).values()
        return choice(c.text, c.finish, c.token_ids)

    with serving(draws) as endpoint:
        yield endpoint


# ── the protocol ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0}, {}, {"top_k": 3}, {"top_p": 0.5}, {"max_tokens": 1}, {"stop": ["\n", "3"]},
     {"stop_ids": [5]}, {"stop": ["never"], "max_tokens": 3}],
    ids=str,
)  # fmt: skip
def test_it_draws_what_is_served(served, embedded, prompts, options):
    """Completion i with seed + i, ends, stop texts and ids: all as the engine after it draws them itself."""
    engine = served.engine(embedded.model)
    assert isinstance(engine, Engine)
    asked = [Request(str(i), p, 3, 10 + 1000 * i) for i, p in enumerate(prompts)]
    options = {"max_tokens": 12} | options
    assert complete(engine, asked, **options) == complete(embedded, asked, **options)


def test_a_prefix_is_part_of_the_completion(served, embedded, prompts):
    """Greedy completions go on as they were from any place; a stop text is found across it, and ``max_tokens`` counts all."""
    engine = served.engine(embedded.model)
    for options in ({}, {"stop": ["\n"]}):
        ((whole, _),) = complete(embedded, [Request("r", prompts[0], 2, 3)], temperature=0, **options).values()
        for cut in (1, len(whole.token_ids) - 1, len(whole.token_ids)):
            asked = [Request("r", prompts[0], 2, 3, whole.token_ids[:cut])]
            assert complete(engine, asked, temperature=0, **options) == {"r": [whole, whole]}


def test_what_is_sent(tiny_model_dir):
    """Everything that the server or the model's own configuration would else decide; the key; other numbers after a prefix."""
    with serving(by_number) as endpoint:
        request = Request("r", [5, 6], 2, 7, [8])
        engine = endpoint.engine(tiny_model_dir, served_as="m")
        sampled(engine, [request], temperature=0.5, top_p=0.9, top_k=4, max_tokens=9, stop=["x"], stop_ids=[3])
        expected = {
            "model": "m", "prompt": [5, 6, 8], "max_tokens": 8, "temperature": 0.5, "top_p": 0.9, "top_k": 4,
            "stop": ["x"], "stop_token_ids": [3], "return_token_ids": True, "presence_penalty": 0.0,
            "frequency_penalty": 0.0, "repetition_penalty": 1.0, "min_p": 0.0,
        }  # fmt: skip
        seeds = sorted(body.pop("seed") for body in endpoint.asked)
        assert seeds == [(7 + GOLDEN) % (1 << 62), (7 + GOLDEN) % (1 << 62) + 1]
        assert endpoint.asked == [expected] * 2
    assert endpoint.keys == {"Bearer none"}


def test_greedy_completions_are_asked_for_once(tiny_model_dir):
    with serving(by_number) as endpoint:
        (five,) = sampled(endpoint.engine(tiny_model_dir), requests(1, n=5), temperature=0).values()
    assert five == [Completion([20, 1], "0", "stop")] * 5
    assert len(endpoint.asked) == 1


def test_the_context_is_the_server_s_unless_it_is_given(tiny_model_dir):
    """198 of 200 tokens leave room for 2; a prompt of 200 is refused here; what else is refused, by the server."""
    refuses = False
    with serving(lambda body: 400 if refuses else by_number(body)) as endpoint:
        long = Request("long", [5] * 198, 1, 0)
        sampled(endpoint.engine(tiny_model_dir), [long], max_tokens=50)
        sampled(endpoint.engine(tiny_model_dir, max_model_len=199), [long], max_tokens=50)
        assert [body["max_tokens"] for body in endpoint.asked] == [2, 1]
        with pytest.raises(InputError, match="much: the prompt has 200 tokens, the engine takes 200"):
            sampled(endpoint.engine(tiny_model_dir), [Request("much", [5] * 200, 1, 0)])
        refuses = True
        with pytest.raises(InputError, match=f"long: {endpoint.url}: Error code: 400 .*says the"):
            sampled(endpoint.engine(tiny_model_dir), [long])
    assert len(endpoint.asked) == 3


# ── a server that says less than vLLM's ───────────────────────────────────────────────────────────


def test_without_token_ids_they_are_made_from_the_text(tiny_model_dir, words):
    with serving(lambda body: choice("a = 1 \n")) as endpoint:
        engine = endpoint.engine(tiny_model_dir)
        with pytest.warns(UserWarning, match="returns no token ids"):
            ((c,),) = sampled(engine, requests(1)).values()
        assert c == Completion(words.encode("a = 1 \n"), "a = 1 \n", "stop")
        asked = [Request("r", [5], 1, 0, words.encode("b +"))]
        with pytest.warns(UserWarning, match="returns no token ids"):
            ((c,),) = sampled(engine, asked).values()
        assert c.token_ids == words.encode("b + a = 1 \n")
        with pytest.raises(InputError, match=r"sampling\.stop_ids: .* no token ids"):
            sampled(engine, requests(1), stop_ids=[3])


@pytest.fixture(scope="module")
def words(base):
    from stepverify.data.encode import load_tokenizer

    return load_tokenizer(str(base))


def test_what_the_cache_had_is_counted_where_the_server_says(tiny_model_dir):
    """Of 30 + 10 tokens 24 were cached; a third prompt of which nothing is said counts nothing."""
    said = [{"prompt_tokens": 30, "prompt_tokens_details": {"cached_tokens": 24}},
            {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 0}}, {"prompt_tokens": 50}]  # fmt: skip

    def draws(body):
        usage = {"completion_tokens": 2, "total_tokens": 0, **said[body["seed"] // 100]}
        return choice("1", "stop", [21], usage=usage)

    with serving(draws) as endpoint, Progress("label", "solutions", 3) as progress:
        engine = endpoint.engine(tiny_model_dir)
        engine.usage.count(1000, 1000)  # by an earlier stage
        progress.watch(engine)
        sampled(engine, requests(3))
        progress.add(3, tokens=6, labels=9)
        assert "60% of prompts cached" in progress._bar.postfix
        assert "tokens/s, " in progress._bar.postfix
        assert "labels/s, " in progress._bar.postfix
    expected = {"prompt_tokens_this_run": 40, "cached_tokens_this_run": 24, "labels_this_run": 9, "tokens_this_run": 6}
    assert {key: progress.summary()[key] for key in expected} == expected
    with Progress("label", "solutions", 3) as progress:
        progress.watch(object())
        progress.add(1)
    assert "prompt_tokens_this_run" not in progress.summary()


# ── the stream ────────────────────────────────────────────────────────────────────────────────────


def test_so_many_are_in_flight_over_connections_that_stay(tiny_model_dir):
    """Ten, and ten always: each waits for nine others."""
    together = threading.Barrier(10)

    def draws(body):
        together.wait(30)
        return by_number(body)

    with serving(draws) as endpoint:
        found = sampled(endpoint.engine(tiny_model_dir, max_in_flight=10), requests(60, n=2))
    assert found == {str(i): [Completion([20, 1], "0", "stop"), Completion([21, 1], "1", "stop")] for i in range(60)}
    assert endpoint.most == 10
    assert len(endpoint.connections) <= 12


def test_completions_come_as_they_are_done(tiny_model_dir):
    """The first request is answered when all others are there."""
    held, order = threading.Event(), []

    def draws(body):
        assert body["seed"] or held.wait(30)
        return by_number(body)

    async def one(request):
        await engine.complete(request, SamplingOptions())
        order.append(request.key)
        if len(order) == 7:
            held.set()

    async def every():
        async with aclosing(engine):
            await run_all(requests(8), one)

    with serving(draws) as endpoint:
        engine = endpoint.engine(tiny_model_dir, max_in_flight=3)
        asyncio.run(every())
    assert order[-1] == "0"


def test_an_engine_serves_one_event_loop_after_the_other(tiny_model_dir):
    """Also where the first one was left without closing."""
    with serving(by_number) as endpoint:
        engine = endpoint.engine(tiny_model_dir)
        for _ in range(2):
            assert asyncio.run(engine.complete(requests(1)[0], SamplingOptions())) == [Completion([20, 1], "0", "stop")]


def test_calls_that_are_cancelled_leave_nothing_running(tiny_model_dir):
    """No thread, no connection; those that the server was busy with are closed."""
    held = threading.Event()

    def draws(body):
        assert not body["seed"] or held.wait(30)
        return by_number(body) | {"padding": "x" * (1 << 22)}  # more than a socket buffers

    async def first_alone(engine):
        async with aclosing(engine):
            calls = [asyncio.ensure_future(engine.complete(r, SamplingOptions())) for r in requests(50)]
            await calls[0]
            for call in calls:
                call.cancel()
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(isinstance(result, asyncio.CancelledError) for result in ended) == 49

    with serving(draws) as endpoint:
        before, start = set(threading.enumerate()), time.monotonic()
        asyncio.run(first_alone(endpoint.engine(tiny_model_dir, max_in_flight=4)))
        assert time.monotonic() - start < 25  # the server holds them for 30
        assert not {t for t in set(threading.enumerate()) - before if "process_request" not in t.name}
        assert len(endpoint.asked) <= 5
        held.set()
        deadline = time.monotonic() + 20
        while endpoint.now or (endpoint.broken < len(endpoint.asked) - 1 and time.monotonic() < deadline):
            time.sleep(0.01)
        assert endpoint.broken >= len(endpoint.asked) - 1  # the idle one of the first may count as well
