"""The engine over an OpenAI-compatible endpoint, against a server on loopback that answers by the embedded engine."""

import asyncio
import json
import socket
import threading
import time
from contextlib import aclosing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sampling.engines import Completion, Engine, Request, SamplingOptions, ServerEngine, TransformersEngine
from sampling.engines.base import GOLDEN
from sampling.runtime.progress import Progress
from sampling.runtime.scheduler import run_all
from stepverify.records import InputError
from tests.helpers.engines import PROBLEMS, complete, complete_all

pytest.importorskip("openai", reason="OpenAI's client is not installed: install stepverify[server]")

MODELS = {"object": "list", "data": [{"id": "m", "object": "model", "max_model_len": 200}]}


def choice(text="1", finish="stop", token_ids=None, **more):
    known = {} if token_ids is None else {"token_ids": token_ids}
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish, "logprobs": None, **known}], **more}


class Endpoint(ThreadingHTTPServer):
    """Answers with what ``draws(body)`` gives: a completion; a status; or what is no JSON. Remembers what it was asked.

    ``most`` is how many it was asked for at the same time, ``broken`` how many connections were gone when it answered.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, draws, models=MODELS):
        super().__init__(("127.0.0.1", 0), Handler)
        self.draws, self.models = draws, models
        self.asked, self.keys, self.now, self.most, self.broken = [], set(), 0, 0, 0
        self.connections, self.lock = set(), threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def engine(self, model, **options):
        return ServerEngine(str(model), self.url, **{"served_as": "m", "max_retries": 1} | options)

    def handle_error(self, request, client_address):
        self.broken += 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(self.server.models if self.path == "/v1/models" else 404)

    def do_POST(self):
        assert self.path == "/v1/completions"
        body, server = json.loads(self.rfile.read(int(self.headers["Content-Length"]))), self.server
        with server.lock:
            server.asked.append(body)
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            answer = server.draws(body)
        finally:
            with server.lock:
                server.now -= 1
        self.answer(answer)

    def answer(self, answer):
        self.server.keys.add(self.headers["Authorization"])
        self.server.connections.add(self.client_address)
        status = answer if isinstance(answer, int) else 200
        sent = {"error": {"message": f"says the\nserver {status}"}} if status != 200 else answer
        data = sent.encode() if isinstance(sent, str) else json.dumps(sent).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextmanager
def serving(draws, **options):
    endpoint = Endpoint(draws, **options)
    thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.shutdown()
        endpoint.server_close()
        thread.join()


def by_number(body):
    """A model of known law: of seed s it draws the ids 20 + s % 10, and 1 (the end)."""
    return choice(str(body["seed"] % 10), "stop", [20 + body["seed"] % 10, 1])


def requests(number, n=1):
    return [Request(str(i), [5, 6], n, 100 * i) for i in range(number)]


def sampled(engine, asked, **options):
    return complete_all(engine, asked, SamplingOptions(**options))


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
        assert time.monotonic() - start < 10
        assert not {t for t in set(threading.enumerate()) - before if "process_request" not in t.name}
        assert len(endpoint.asked) <= 5
        held.set()
        deadline = time.monotonic() + 20
        while endpoint.now or (endpoint.broken < len(endpoint.asked) - 1 and time.monotonic() < deadline):
            time.sleep(0.01)
        assert endpoint.broken >= len(endpoint.asked) - 1  # the idle one of the first may count as well


# ── errors ────────────────────────────────────────────────────────────────────────────────────────


def flaky(*failures):
    """The first attempt at each seed fails, in turn by each of ``failures``."""
    seen, lock = [], threading.Lock()

    def draws(body):
        with lock:
            first, number = body["seed"] not in seen, len(seen)
            if first:
                seen.append(body["seed"])
        failure = failures[number % len(failures)] if first else None
        if failure == "slow":
            time.sleep(1.5)
        return failure if isinstance(failure, int) else by_number(body)

    return draws


def test_what_may_pass_is_tried_again(tiny_model_dir):
    with serving(by_number) as endpoint:
        expected = sampled(endpoint.engine(tiny_model_dir), requests(8))
    with serving(flaky(500, "slow", 503, 429)) as endpoint:
        assert sampled(endpoint.engine(tiny_model_dir, timeout=1.0, max_retries=3), requests(8)) == expected
    assert len(endpoint.asked) >= 16


@pytest.mark.parametrize(
    ("draws", "options", "message"),
    [
        # Client 2 quotes the server's JSON, client 3 its message.
        (lambda body: 500, {}, r"[012]: http://127.*: Error code: 500 - .*says the.{1,2}server 500"),
        (lambda body: 401, {}, "Error code: 401"),
        (lambda body: time.sleep(0.6) or 200, {"timeout": 0.2}, r"[012]: http://127.*: no answer within 0\.2 seconds"),
        (lambda body: choice("1", "abort"), {}, "ended a completion with finish_reason 'abort'"),
        (lambda body: {"choices": []}, {}, r"returned no completion: {'choices': \[\]}"),
        (lambda body: "<html>", {}, "[012]: http://127.*: the response is no JSON"),
    ],
)
def test_errors_are_one_line(tiny_model_dir, draws, options, message):
    with serving(draws) as endpoint, pytest.raises(InputError, match=message) as raised:
        sampled(endpoint.engine(tiny_model_dir, **{"max_retries": 0} | options), requests(3))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"data": [{"id": "a"}, {"id": "b"}]}, "serves 'a', 'b', not 'm'; served_as is the server's name"),
        ({"data": []}, "serves no model, not 'm'"),
        ({"hello": 1}, "lists no models; the URL of an OpenAI-compatible endpoint usually ends in /v1"),
        ("<html>", "/v1/models: the response is no JSON"),
        (404, "/v1/models: Error code: 404"),
    ],
)
def test_an_endpoint_that_does_not_serve_the_model(tiny_model_dir, models, message):
    with serving(by_number, models=models) as endpoint, pytest.raises(InputError, match=message):
        sampled(endpoint.engine(tiny_model_dir), requests(1))
    assert endpoint.asked == []


def test_an_endpoint_that_is_not_there(tiny_model_dir):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(InputError, match=f"{url}/models: cannot be reached"):
            sampled(ServerEngine(str(tiny_model_dir), url, max_retries=0), requests(1))


def test_keys_and_names(tiny_model_dir, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with serving(by_number, models={"data": [{"id": str(tiny_model_dir)}]}) as endpoint:
        engine = ServerEngine(str(tiny_model_dir), endpoint.url, api_key_env="JUDGE_KEY")
        with pytest.raises(InputError, match="api_key_env: the environment variable JUDGE_KEY is not set"):
            sampled(engine, requests(1))
        monkeypatch.setenv("JUDGE_KEY", "secret")
        sampled(engine, requests(1))
    assert endpoint.keys == {"Bearer secret"}
    assert engine.identity() == {"engine": "server", "model": str(tiny_model_dir), "served_as": str(tiny_model_dir)}


@pytest.mark.parametrize(("key", "value"), [("max_in_flight", 0), ("max_retries", -1), ("timeout", 0.0)])
def test_bad_settings(key, value):
    with pytest.raises(InputError, match=f"{key}: expected .*, got {value}"):
        ServerEngine("m", "http://127.0.0.1:1/v1", **{key: value})


def test_without_the_client_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(InputError, match=r"install stepverify\[server\]"):
        sampled(ServerEngine("m", "http://127.0.0.1:1/v1"), requests(1))
