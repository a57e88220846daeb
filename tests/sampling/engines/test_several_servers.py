"""One engine over several servers: where requests go, and what becomes of those of a server that dies."""

import asyncio

import pytest

from sampling.engines import Completion
from stepverify.records import InputError
from tests.helpers.endpoints import Endpoint, Reply, by_number, choice, error
from tests.helpers.fleet import Fleet, answered, expected, requests, seeds, several, until


def test_all_servers_have_as_much_to_do():
    """Six wait for each other: two at each of three servers, which is what each may have."""
    full = asyncio.Event()

    async def slow(body):
        if sum(endpoint.now for endpoint in fleet.endpoints) == 6:
            full.set()
        await full.wait()
        return by_number(body)

    fleet, asked = Fleet(*(Endpoint(slow) for _ in range(3))), requests(24)

    async def work(urls):
        engine = several(urls, max_in_flight=2)
        assert engine.capacity == 12
        assert engine.status() == ""
        found = await answered(engine, asked, close=False)
        assert engine.status() == "3 of 3 servers"
        await engine.aclose()
        return found

    assert fleet.run(work) == expected(asked)
    assert [endpoint.most for endpoint in fleet.endpoints] == [2, 2, 2]


def test_a_prompt_is_read_by_one_server_where_there_is_room():
    """Four completions of each prompt: a quarter of 16, by which one server may be ahead."""

    async def slow(body):
        await asyncio.sleep(0.02)
        return by_number(body)

    fleet, asked = Fleet(Endpoint(slow), Endpoint(slow)), requests(2, n=4)
    assert fleet.run(lambda urls: answered(several(urls, max_in_flight=16), asked)) == expected(asked)
    assert [{tuple(body["prompt"]) for body in e.asked} for e in fleet.endpoints] == [{(20,) * 8}, {(21,) * 8}]


def test_one_server_dies_with_requests_in_flight_and_comes_back(capsys):
    """All are answered as by one server, those that it had in work and no others twice; it is probed before it is used."""

    async def slow(body):
        await asyncio.sleep(0.002)
        return by_number(body)

    async def dying(body):
        if len(dies.asked) == 4:
            return await fleet.die(1)
        await asyncio.sleep(0.2)
        return by_number(body)

    dies, back = Endpoint(dying), Endpoint(slow)
    fleet, asked = Fleet(Endpoint(slow), dies, Endpoint(slow)), requests(24)

    async def work(urls):
        engine = several(urls, max_in_flight=4)
        found = await answered(engine, asked, close=False)
        assert (engine.status(), engine.usage.retries) == ("2 of 3 servers", 4)
        await fleet.start(1, back)
        await until(lambda: engine.status() == "3 of 3 servers")
        assert [head.split()[1] for head in back.heads] == ["/v1/models", "/v1/completions"]
        again = await answered(engine, asked, close=False)
        await engine.aclose()
        return found, again

    assert fleet.run(work) == (expected(asked), expected(asked))
    assert back.asked
    assert seeds(*fleet.endpoints, dies) == sorted([r.seed for r in asked] * 2 + seeds(dies))
    said = capsys.readouterr().err
    assert (
        said.count(f"{fleet.urls[1]}: lost the connection (Server disconnected); taken out, 2 of 3 servers are left")
        == 1
    )
    assert said.count(f"{fleet.urls[1]}: answers and is used; 3 of 3 servers\n") == 1
    assert len(said.splitlines()) == 3


def test_a_server_that_comes_back_with_another_model_stays_out(capsys):
    other = Endpoint(lambda body: choice("9"), models={"data": [{"id": "other"}]})
    dies = Endpoint(lambda body: fleet.die(0))
    fleet, asked = Fleet(dies, Endpoint(by_number)), requests(6)

    async def work(urls):
        engine = several(urls)
        await answered(engine, asked[:3], close=False)
        await fleet.start(0, other)
        await until(lambda: len(other.heads) >= 3)
        assert await answered(engine, asked, close=False) == expected(asked)
        assert engine.status() == "1 of 2 servers"
        await fleet.kill(0)
        await fleet.start(0, Endpoint(by_number))  # its owner has noticed
        await until(lambda: engine.status() == "2 of 2 servers")
        await engine.aclose()

    fleet.run(work)
    assert not other.asked
    line = f"{fleet.urls[0]}: serves 'other', not 'm'; served_as is the server's name of the model; it is not used\n"
    assert capsys.readouterr().err.count(line) == 1


def test_a_server_whose_model_is_gone_is_taken_out_and_the_last_one_ends_the_run(capsys):
    """Its requests are asked elsewhere and count as retried; where no server has the model, waiting would change nothing."""

    def gone(body):
        return error(404, "no model m")

    last = Endpoint(by_number)
    fleet, asked = Fleet(Endpoint(gone), last), requests(5)

    async def work(urls):
        engine = several(urls)
        fleet.endpoints[0].probe = lambda body: gone(body) if fleet.endpoints[0].asked else choice()
        assert await answered(engine, asked, max_in_work=1, close=False) == expected(asked)
        assert engine.usage.retries == 1
        last.answers = gone
        await answered(engine, asked)

    with pytest.raises(InputError, match=r"no server is left: http.*: error 404: no model m"):
        fleet.run(work)
    assert "error 404: no model m; the URL of an OpenAI-compatible endpoint usually ends in /v1; taken out, 1 of 2" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("hang", [False, True])
def test_all_die_or_hang_and_the_run_ends_with_one_line(hang, capsys):
    """Requests that were at work in each of them are named; those that hang are not asked for one that was lost."""

    def silent(body):
        return Reply(choice(), wait=60)

    fleet = Fleet(*(Endpoint(silent if hang else lambda body, i=i: fleet.die(i)) for i in range(2)))
    for endpoint in fleet.endpoints if hang else ():
        endpoint.probe = lambda body, endpoint=endpoint: silent(body) if endpoint.probed[1:] else choice()
    with pytest.raises(InputError) as raised:
        fleet.run(lambda urls: answered(several(urls, give_up_after=0.5), requests(1)))
    one, two = fleet.urls
    assert str(raised.value).startswith(
        f"{one}, {two}: stopped answering: no completion for 0.5 seconds (give_up_after); last: http"
    )
    if hang:
        assert "no answer within 0.125 seconds; what was sampled is kept, the same" in str(raised.value)
        return
    assert "cannot be reached (Connection refused); each server went away while it worked on p#0; what" in str(
        raised.value
    )
    said = capsys.readouterr().err
    assert "taken out, 0 of 2 servers are left; for up to 0.5 s requests wait for one to return" in said


@pytest.mark.parametrize("refused", ["error", "skip"])
def test_a_request_that_ends_server_after_server_is_named(refused):
    """Three servers that are started again by someone; all other requests are answered, though they were lost too."""

    async def answer(body, i):
        if body["seed"] != 55:
            await asyncio.sleep(0.005)
            return by_number(body)
        beside.append(fleet.endpoints[i].now - 1)
        return await fleet.die(i, fleet.start(i))

    fleet = Fleet(*(Endpoint(lambda body, i=i: answer(body, i)) for i in range(3)))
    asked, beside = requests(12), []

    def work(urls):
        return answered(several(urls, refused=refused, max_in_flight=2), asked)

    if refused == "error":
        with pytest.raises(
            InputError,
            match=r"^p#5: http.*: lost .*; 3 servers in turn went away while they worked on it, the last on it alone; `ref",
        ):
            fleet.run(work)
    else:
        assert fleet.run(work) == expected(asked) | {"p#5": [Completion(None, "", "refused")]}
    assert beside[0] > 0
    assert len(beside) == 3
    assert beside[2] == 0, "the last server had nothing else in work"


def test_an_outage_of_all_servers_blames_no_request():
    """All die with requests in work, and come back: each request is lost once."""
    down = []

    async def slow(body):
        if not down and sum(endpoint.now for endpoint in fleet.endpoints) == 6:
            down.append(True)
            fleet.soon(*map(fleet.kill, range(3)), asyncio.sleep(0.05), *map(fleet.start, range(3)))
        await asyncio.sleep(0.02 if down else 60)
        return by_number(body)

    fleet, asked = Fleet(*(Endpoint(slow) for _ in range(3))), requests(18)
    assert fleet.run(lambda urls: answered(several(urls, max_in_flight=2), asked)) == expected(asked)
    assert max(seeds(*fleet.endpoints).count(r.seed) for r in asked) == 2


def test_a_gateway_that_is_down_blames_no_request():
    """It stands before all servers, which seem to live: the lost request is asked only where one has answered since."""
    state = []

    def gateway(answer, body):
        if answer is by_number and not state:
            state.append("down")
            asyncio.get_running_loop().call_later(0.05, state.append, "up")
        return error(502) if state[-1:] == ["down"] else answer(body)

    def behind():
        return Endpoint(lambda body: gateway(by_number, body), lambda body: gateway(lambda body: choice(), body))

    fleet, asked = Fleet(behind(), behind(), behind()), requests(1)
    assert fleet.run(lambda urls: answered(several(urls), asked)) == expected(asked)
    assert len(seeds(*fleet.endpoints)) == 2


def test_a_server_that_hangs_loses_its_requests_to_the_others(capsys):
    """It takes connections and is silent: after half of give_up_after it is asked for a token, which takes a quarter."""

    def hang(body):
        return Reply(choice(), wait=60)

    hung = Endpoint(hang)
    fleet, asked = Fleet(hung, Endpoint(by_number)), requests(6)

    async def work(urls):
        engine = several(urls, give_up_after=1.0, timeout=50.0)
        hung.probe = lambda body: choice() if len(hung.probed) == 1 else hang(body)
        async with asyncio.timeout(20):
            return await answered(engine, asked)

    assert fleet.run(work) == expected(asked)
    assert len(hung.asked) == 3
    assert (
        f"{fleet.urls[0]}: no answer within 0.25 seconds; taken out, 1 of 2 servers are left" in capsys.readouterr().err
    )


def test_closing_leaves_nothing_behind():
    """One server is out and checked, requests are in flight, others wait for a place."""

    async def slow(body):
        await asyncio.sleep(60)

    fleet = Fleet(Endpoint(lambda body: fleet.die(0)), Endpoint(slow))

    async def work(urls):
        before = asyncio.all_tasks()
        engine = several(urls, max_in_flight=1)
        calls = asyncio.ensure_future(answered(engine, requests(9)))
        await until(lambda: engine.status() == "1 of 2 servers" and fleet.endpoints[1].asked)
        calls.cancel()
        await asyncio.gather(calls, return_exceptions=True)
        await fleet.kill(1)
        return [task for task in asyncio.all_tasks() - before if "Fleet" not in repr(task)]

    assert fleet.run(work) == []
