"""One engine over several servers: those that are busy, abort, or answer badly, and faults in any order."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepverify.records import InputError
from tests.helpers.endpoints import Endpoint, Reply, by_number, choice, error
from tests.helpers.fleet import Fleet, answered, expected, requests, several, until


def test_a_busy_server_is_not_asked_while_it_rests():
    """It wants to be left alone for 5 seconds; nothing waits for it."""
    busy = Endpoint(lambda body: Reply(b"", 429, {"Retry-After": "5"}))
    fleet, asked = Fleet(busy, Endpoint(by_number)), requests(6)

    async def work(urls):
        engine = several(urls, max_retries=1)
        engine.patience = replace(engine.patience, longest_pause=60.0)
        async with asyncio.timeout(4):
            found = await answered(engine, asked, max_in_work=1, close=False)
        assert (engine.status(), engine.usage.retries) == ("2 of 2 servers", 1)
        await engine.aclose()
        return found

    assert fleet.run(work) == expected(asked)
    assert len(busy.asked) == 1


@pytest.mark.parametrize("answer", [choice(finish="abort"), error(503)], ids=["abort", "503"])
def test_what_a_server_aborts_is_asked_elsewhere_at_once(answer, capsys):
    aborts = Endpoint(lambda body: answer if len(aborts.asked) == 1 else by_number(body))
    fleet, asked = Fleet(aborts, Endpoint(by_number)), requests(1)

    async def work(urls):
        engine = several(urls, max_retries=0)
        found = await answered(engine, asked, close=False)
        assert engine.usage.retries == 1
        await until(lambda: engine.status() == "2 of 2 servers")
        await engine.aclose()
        return found

    assert fleet.run(work) == expected(asked)
    assert [len(endpoint.asked) for endpoint in fleet.endpoints] == [1, 1]
    assert "asking again" not in capsys.readouterr().err


def test_bad_answers_are_retried_elsewhere_and_five_in_a_row_take_a_server_out(capsys):
    """It would else be given most requests, since it is done with them so soon."""
    broken = Endpoint(lambda body: {"choices": []})
    fleet, asked = Fleet(broken, Endpoint(by_number)), requests(9)

    async def work(urls):
        engine = several(urls, max_retries=1)
        broken.probe = lambda body: {"choices": []} if broken.asked else choice()
        return await answered(engine, asked, max_in_work=1)

    assert fleet.run(work) == expected(asked)
    assert [len(endpoint.asked) for endpoint in fleet.endpoints] == [5, 9]
    assert "5 bad answers in a row, the last one: bad answer: expected 1 choice, got 0" in capsys.readouterr().err


def test_a_request_that_is_answered_badly_everywhere_is_named_after_max_retries():
    fleet = Fleet(*(Endpoint(lambda body: error(500)) for _ in range(2)))
    with pytest.raises(InputError, match=r"^p#0: http.*: error 500: says the server \(3 attempts\)$"):
        fleet.run(lambda urls: answered(several(urls, max_retries=2), requests(1)))
    assert sorted(len(endpoint.asked) for endpoint in fleet.endpoints) == [1, 2]


def test_a_check_that_is_refused_takes_its_server_out_and_refuses_no_request(capsys):
    """The first server dies, the second now refuses the one token that it is asked for before it gets the request."""
    refuses = Endpoint(by_number, lambda body: error(400, "no more") if refuses.probed[1:] else choice())
    fleet, asked = Fleet(Endpoint(lambda body: fleet.die(0)), refuses, Endpoint(by_number)), requests(1)
    assert fleet.run(lambda urls: answered(several(urls), asked)) == expected(asked)
    assert not refuses.asked
    line = (
        f"{fleet.urls[1]}: refuses a request for a few tokens: error 400: no more; taken out, 1 of 3 servers are left"
    )
    assert line in capsys.readouterr().err


PASSING = {
    "bad": {"choices": []},
    "500": error(500),
    "busy": Reply(b"", 429, {"Retry-After": "0.01"}),
}
AWAY = ["abort", "die", "503", "404"]


@given(
    st.permutations(["bad", "500", "busy"] * 2 + ["ok"] * 12).map(list),
    st.lists(st.tuples(st.integers(0, 17), st.sampled_from(AWAY)), max_size=2),
)
def test_faults_in_any_order_change_no_completion(faults, away):
    """Of 18 attempts 6 are answered badly or put off, and up to two lose a server: no request is lost with three."""
    for at, kind in away:
        faults.insert(at, kind)
    faults = iter(faults)

    def answer(body, i):
        kind = next(faults, "ok")
        if kind == "die":
            return fleet.die(i, fleet.start(i))
        others = {"ok": by_number(body), "abort": choice(finish="abort"), "503": error(503), "404": error(404)}
        return (PASSING | others)[kind]

    fleet, asked = Fleet(*(Endpoint(lambda body, i=i: answer(body, i)) for i in range(3))), requests(12)
    assert fleet.run(lambda urls: answered(several(urls, max_retries=20, max_in_flight=2), asked)) == expected(asked)
