"""The engine over an OpenAI-compatible endpoint: many requests, and a server that dies."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace

import pytest

from sampling.engines import SamplingOptions
from sampling.engines.server.client import retry_after
from sampling.engines.server.faults import Fault
from sampling.engines.server.retries import Patience, Retries
from sampling.runtime.progress import Progress
from sampling.runtime.scheduler import run_all
from stepverify.records import InputError
from tests.helpers.endpoints import (
    Endpoint,
    Reply,
    by_number,
    choice,
    engine_at,
    error,
    number,
    question,
    run,
    sampled,
    served_by,
)  # fmt: skip


def test_usage_and_retries_are_counted_where_the_server_says():
    """Of 30 + 10 tokens 24 were cached; a third prompt of which nothing is said counts nothing. One retry."""
    said = [{"prompt_tokens": 30, "prompt_tokens_details": {"cached_tokens": 24}},
            {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 0}}, {"prompt_tokens": 50}]  # fmt: skip
    endpoint = Endpoint(lambda body: error(500) if len(endpoint.asked) == 1 else choice(usage=said[body["seed"]]))

    async def main(url):
        with Progress("label", "solutions", 3) as progress:
            engine = engine_at(url, max_in_flight=1)
            engine.usage.count(1000, 1000)  # by an earlier stage
            progress.watch(engine)
            await served_by(engine, question(n=3))
            progress.add(3, tokens=6, labels=9)
            assert "60% of prompts cached" in progress._bar.postfix
            assert "1 retries" in progress._bar.postfix
        return progress.summary()

    expected = {"prompt_tokens_this_run": 40, "cached_tokens_this_run": 24, "tokens_this_run": 6, "retries_this_run": 1}
    assert expected.items() <= run(endpoint, main).items()


def test_so_many_are_in_flight_over_connections_that_stay():
    """Ten, and ten always: each waits for nine others."""
    there, full = [], asyncio.Event()

    async def slow(body):
        there.append(body)
        if len(there) == 10:
            full.set()
        await full.wait()
        return by_number(body)

    endpoint = Endpoint(slow)

    async def main(url):
        engine, found = engine_at(url, max_in_flight=10), {}

        async def one(i):
            found[i] = await engine.complete(question(n=2, key=str(i), seed=100 * i), SamplingOptions())

        async with aclosing(engine):
            await run_all(range(30), one)
        return found

    assert run(endpoint, main) == {i: [number(0), number(1)] for i in range(30)}
    assert endpoint.most == 10


def test_an_engine_serves_one_event_loop_after_the_other():
    """Also where the first one was left without closing."""
    endpoint, engines = Endpoint(by_number), []

    async def main(url):
        engine = engines[0] if engines else engine_at(url)
        engines.append(engine)
        engine._addresses = engine_at(url)._addresses
        return await engine.complete(question(), SamplingOptions(max_tokens=8))

    assert [run(endpoint, main) for _ in range(2)] == [[number(0)]] * 2


def test_calls_that_are_cancelled_leave_nothing_running():
    async def slow(body):
        await asyncio.sleep(0 if body["seed"] == 0 else 60)
        return by_number(body)

    async def main(url):
        before = asyncio.all_tasks()
        async with aclosing(engine_at(url, max_in_flight=4)) as engine:
            calls = [
                asyncio.ensure_future(engine.complete(question(key=str(i), seed=i), SamplingOptions()))
                for i in range(50)
            ]
            await calls[0]
            for call in calls:
                call.cancel()
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(isinstance(result, asyncio.CancelledError) for result in ended) == 49
        return [t for t in asyncio.all_tasks() - before if "connected" not in repr(t) and "_accept" not in repr(t)]

    endpoint = Endpoint(slow)
    assert run(endpoint, main) == []
    assert len(endpoint.asked) <= 5


def test_models_that_are_not_there_are_listed_in_part():
    models = {"data": [{"id": f"model-{i}"} for i in range(300)]}
    with pytest.raises(InputError, match=r"serves 'model-0', .*'model-7' and 292 more, not 'm'"):
        sampled(Endpoint(by_number, models=models), question())


# ── faults ────────────────────────────────────────────────────────────────────────────────────────


def test_pauses_grow_with_jitter_up_to_a_limit_and_are_as_long_as_the_server_asks():
    """0.5, 1, 2 seconds and so on, of which half is random; a wish of 7 s is met, with up to a tenth on top, one of a day not."""
    patience = Patience(max_retries=5, give_up_after=300)
    assert [patience.pause(k, None, 0.0) for k in (1, 2, 3, 4)] == [0.25, 0.5, 1.0, 2.0]
    assert [patience.pause(k, None, 1.0) for k in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]
    assert patience.pause(50, None, 1.0) == patience.pause(1, 86400.0, 0.0) == 60.0
    assert patience.pause(1, 7.0, 0.0) == 7.0
    assert patience.pause(1, 7.0, 0.5) == pytest.approx(7.35)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "7"}, 7.0), ({"Retry-After": " 1.5 "}, 1.5), ({"Retry-After": "soon"}, None), ({}, None),
     ({"Retry-After": "-3"}, None), ({"Retry-After": "9" * 5000}, 1e9), ({"Retry-After": "³"}, None),
     ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
     ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:29:00 GMT"}, 0.0),
     ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"[:-3] + "+9999", "Date": "x"}, None)],
    ids=str,
)  # fmt: skip
def test_retry_after(headers, seconds):
    assert retry_after(headers) == seconds


def test_the_server_is_asked_again_when_it_says():
    """0.3 s, though its own pauses are milliseconds."""
    endpoint = Endpoint(lambda body: choice() if len(endpoint.asked) > 1 else Reply(b"", 429, {"Retry-After": "0.3"}))

    async def main(url):
        engine = engine_at(url)
        engine.patience = replace(engine.patience, longest_pause=1.0)
        start = time.monotonic()
        await served_by(engine, question())
        return time.monotonic() - start

    assert run(endpoint, main) >= 0.3
    assert len(endpoint.asked) == 2


def test_a_server_that_was_never_there_fails_at_once():
    async def main():
        await served_by(engine_at("http://127.0.0.1:1/v1", give_up_after=600.0), question())

    start = time.monotonic()
    with pytest.raises(
        InputError, match=r"http://127\.0\.0\.1:1/v1: cannot be reached \(Connection refused\); start the"
    ):
        asyncio.run(main())
    assert time.monotonic() - start < 5


def test_a_server_that_dies_is_given_up_after_the_stated_time_and_what_it_served_is_kept():
    """Of 6 completions 3 are served; all others end with one line, after 0.5 s and not 6 times a time-out."""

    async def dying(body):
        return by_number(body) if body["seed"] < 3 else Reply(raw=b"")

    endpoint = Endpoint(dying)
    request = question(n=6)

    async def main(url):
        endpoint.probe = by_number
        engine = engine_at(url, give_up_after=0.5, max_in_flight=2)
        await engine.complete(question(), SamplingOptions())
        endpoint.probe = lambda body: Reply(raw=b"")
        await served_by(engine, request)

    start = time.monotonic()
    with pytest.raises(
        InputError,
        match=r"^http://127.*: stopped answering: no completion for 0\.5 seconds \(give_up_after\); last: lost the",
    ):
        run(endpoint, main)
    assert time.monotonic() - start < 10
    assert request.served == {0: number(0), 1: number(1), 2: number(2)}


def test_a_request_older_than_the_last_success_waits_for_the_watch():
    """The failing request begins at 0 and another succeeds at 0.1 s: all end at 0.5 s, no request of its own at 0.4."""
    retries = Retries("server", Patience(max_retries=0, give_up_after=0.4, first_pause=0.01, longest_pause=0.01))

    async def fails():
        raise Fault("lost the connection", "away")

    async def main():
        older = asyncio.create_task(retries.run("older", fails))
        await retries.run("served", lambda: asyncio.sleep(0.1))
        await older

    with pytest.raises(InputError, match=r"^server: stopped answering: no completion for 0\.4 seconds"):
        asyncio.run(main())


def test_silence_ends_all_requests_together():
    """The server accepts everything and says nothing; the time-out of a completion is far away."""
    endpoint = Endpoint(lambda body: Reply(choice(), wait=1000))

    async def main(url):
        engine, ended = engine_at(url, timeout=500.0, give_up_after=0.6), []

        async def one(i):
            try:
                await engine.complete(question(key=str(i)), SamplingOptions())
            except InputError as error:
                ended.append(str(error))

        await served_by(engine, question(), SamplingOptions()) if endpoint.probed else None
        silent = endpoint.probe
        async with aclosing(engine):
            calls = [asyncio.ensure_future(one(i)) for i in range(5)]
            while len(endpoint.asked) < 5:
                await asyncio.sleep(0.01)
            endpoint.probe = lambda body: Reply(silent(body), wait=1000)
            await asyncio.gather(*calls)
        return ended

    (line,) = set(run(endpoint, main))
    assert "stopped answering: no completion for 0.6 seconds (give_up_after); last: no answer" in line


def test_long_completions_are_not_taken_for_silence():
    """One takes three times give_up_after; the one token that is asked for meanwhile shows that the server lives."""
    endpoint = Endpoint(lambda body: Reply(choice(), wait=1.5))
    assert sampled(endpoint, question(), engine={"give_up_after": 0.5})[0].text == "1"
    assert len(endpoint.probed) >= 3
    assert {body["max_tokens"] for body in endpoint.probed[1:]} == {1}


def test_a_server_that_restarts_is_waited_for_beyond_max_retries():
    endpoint = Endpoint(lambda body: choice() if len(endpoint.asked) > 9 else error(503))
    assert sampled(endpoint, question(), engine={"max_retries": 1, "give_up_after": 20.0})[0].text == "1"


def test_a_prompt_that_is_refused_is_asked_for_once():
    """Of its four completions one is refused, which holds for the others; a filter concerns one completion."""
    refusing = Endpoint(lambda body: error(400, "too long"))
    found = sampled(refusing, question(n=4), engine={"refused": "skip", "max_in_flight": 1})
    assert [c.finish for c in found] == ["refused"] * 4
    assert len(refusing.asked) == 1
    filtering = Endpoint(lambda body: choice(finish="content_filter") if body["seed"] == 1 else by_number(body))
    found = sampled(filtering, question(n=3), engine={"refused": "skip"})
    assert [c.finish for c in found] == ["stop", "refused", "stop"]
