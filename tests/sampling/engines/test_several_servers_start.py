"""One engine over several servers: their URLs, what they must have in common, and those that are not there yet."""

import asyncio

import pytest

from sampling.engines import Completion, Message, Request, ServerEngine
from stepverify.records import InputError
from tests.helpers.endpoints import MODELS, Endpoint, by_number, choice, engine_at, error, number, question, turn
from tests.helpers.fleet import Fleet, answered, until


def started(fleet, form="tokens", request=None, **options):
    """The completions of one request, with the engine's settings."""
    asked = request or question(form, key="p")
    engine = {"give_up_after": 30.0} | options
    return fleet.run(lambda urls: answered(engine_at(urls, form, **engine), [asked]))["p"]


@pytest.mark.parametrize(
    ("urls", "line"),
    [([], "base_url: expected the URL of an endpoint or a list of them, got an empty list"),
     (["http://h/v1", "h:8000/v1"], r"base_url\[1\]: expected the URL of an endpoint"),
     (["http://h/v1", "http://g/v1", "http://me:pw@h:80/v1/"], r"base_url\[2\]: is the same endpoint as base_url\[0\]")],
)  # fmt: skip
def test_bad_lists(urls, line):
    with pytest.raises(InputError, match=line) as raised:
        ServerEngine("m", urls)
    assert "pw" not in str(raised.value)


def test_a_password_is_sent_to_its_own_server_and_headers_to_all(monkeypatch):
    monkeypatch.setenv("OTHER", "header-secret")
    fleet = Fleet(Endpoint(by_number), Endpoint(by_number))

    async def work(urls):
        with_user = [urls[0].replace("http://", "http://me:pass-word@"), urls[1]]
        await answered(engine_at(with_user, headers_env={"X-Other": "OTHER"}, give_up_after=30.0), [question()])

    fleet.run(work)
    for endpoint, has in zip(fleet.endpoints, (True, False), strict=True):
        assert all(("authorization" in head.lower()) == has for head in endpoint.heads)
        assert all("X-Other: header-secret" in head for head in endpoint.heads)
    with pytest.raises(InputError, match=r"base_url\[1\]: holds a user or password beside another key"):
        asyncio.run(answered(engine_at(["http://h/v1", "http://u:p@g/v1"], api_key_env="PATH"), [question()]))


def test_who_the_servers_are_is_no_part_of_a_run():
    one, many = ServerEngine("m", "http://h/v1"), ServerEngine("m", ["http://h/v1", "http://g/v1"])
    assert one.identity() == many.identity()
    assert (one.capacity, many.capacity) == (128, 256)


def test_a_list_of_one_is_as_one_server(capsys):
    """No count of servers, and a connection that is lost is waited for with pauses."""
    endpoint = Endpoint(lambda body: error(503) if len(endpoint.asked) < 4 else by_number(body))
    assert started(Fleet(endpoint)) == [number(0)]
    said = capsys.readouterr().err
    assert "servers" not in said
    assert "error 503: says the server; asking again in" in said


@pytest.mark.parametrize(
    ("second", "line"),
    [({"models": {"data": [{"id": "other"}]}}, "http.*: serves 'other', not 'm'"),
     ({"models": error(401)}, "http.*: error 401: says the server; the server wants a key: set api_key_env"),
     ({"probe": lambda body: {"choices": []}}, r"http.*: bad answer: expected 1 choice, got 0"),
     ({"probe": lambda body: choice("23", ids=(24, 25))}, "http.*: its model has another tokenizer than 'words'"),
     ({"probe": lambda body: choice(ids=None)},
      r"http.*: differs from http.*: form of prompts: text \(there tokens\); returned token ids: no \(there yes\); all"),
     ({"probe": lambda body: error(400, "no min_p") if "min_p" in body else choice()},
      r"http.*: differs from http.*: fields that it refuses: min_p \(there none\); all must serve one model alike"),
     ({"probe": lambda body: choice(usage={"prompt_tokens": 12})},
      r"http.*: differs from http.*: tokens that it counts in one prompt: 12 \(there 11\)")],
    ids=["model", "key", "garbage", "tokenizer", "form", "fields", "prompt"],
)  # fmt: skip
def test_a_server_that_differs_ends_the_run_at_the_start(second, line):
    """Nothing is asked; the line names the server by its place in the list."""
    first = Endpoint(by_number, lambda body: choice(usage={"prompt_tokens": 11}))
    fleet = Fleet(first, Endpoint(by_number, **second))
    with pytest.raises(InputError, match=rf"^base_url\[1\]: {line}") as raised:
        started(fleet)
    assert "\n" not in str(raised.value)
    assert fleet.urls[1] in str(raised.value)
    assert not any(endpoint.asked for endpoint in fleet.endpoints)


def test_the_smallest_context_counts_and_is_said(capsys):
    """Of 50 tokens and 198 of the prompt 2 fit into the first's 200, and none into the other's 180."""
    small = {"data": [MODELS["data"][0] | {"max_model_len": 180}]}
    for options, line in (({}, "the prompt has 198 tokens, the engine takes 180"), ({"max_model_len": 300}, None)):
        fleet = Fleet(Endpoint(by_number), Endpoint(by_number, models=small))
        long = Request("p", [5] * 198, 1, 0)
        if line is None:
            assert started(fleet, request=long, **options) == [number(0)]
        else:
            with pytest.raises(InputError, match=line):
                started(fleet, request=long, **options)
            said = f"{fleet.urls[1]}: takes 180 tokens, the fewest of all; that limit is kept\n"
            assert said in capsys.readouterr().err
    assert "fewest" not in capsys.readouterr().err


def test_a_server_that_is_not_there_is_left_out_until_it_is(capsys):
    """It is probed then; with a smaller context than the run has begun with it stays out."""
    small = {"data": [MODELS["data"][0] | {"max_model_len": 180}]}
    late = Endpoint(by_number, models=small)
    fleet = Fleet(late, Endpoint(by_number))

    async def work(urls):
        await fleet.kill(0)
        engine = engine_at(urls, give_up_after=30.0)
        assert await answered(engine, [question()], close=False) == {"p#0": [number(0)]}
        assert engine.status() == "1 of 2 servers"
        await fleet.start(0)
        await until(lambda: len(late.probed) >= 2)
        assert engine.status() == "1 of 2 servers"
        late.models = MODELS
        await until(lambda: engine.status() == "2 of 2 servers")
        await engine.aclose()

    fleet.run(work)
    said, (url, other) = capsys.readouterr().err, fleet.urls
    assert said.splitlines() == [
        f"1 of 2 servers ({other}): /completions with prompts as token ids; token ids are returned",
        f"base_url[0]: {url}: cannot be reached (Connection refused); left out until it answers",
        f"{url}: takes 180 tokens, where the run has begun with 200; it is not used",
        f"{url}: answers and is used; 2 of 2 servers",
    ]
    assert not late.asked


def test_no_server_can_be_reached():
    urls = [f"http://127.0.0.1:{port}/v1" for port in (1, 2, 3, 4, 5)]
    with pytest.raises(InputError) as raised:
        asyncio.run(answered(engine_at(urls), [question()]))
    assert str(raised.value) == (
        f"{', '.join(urls[:3])} and 2 more: cannot be reached (Connection refused); start the servers first, or change "
        "base_url"
    )


def test_servers_that_load_their_model_are_waited_for():
    """Both answer 503 at first, and one of them for ever: it is left out."""
    loading = Endpoint(by_number, lambda body: error(503, "loading") if len(loading.probed) < 4 else choice())
    never = Endpoint(by_number, lambda body: error(503, "loading"))
    assert started(Fleet(never, loading)) == [number(0)]
    assert (len(loading.probed), never.asked) == (4, [])


def begun(tokens, whole=False):
    """A chat server that continues the assistant's turn where it costs one token, and may return all of it."""

    def probe(body):
        continued = body["messages"][-1]["role"] == "assistant"
        text = body["messages"][-1]["content"] + "1" if continued and whole else "1"
        return turn(text, usage={"prompt_tokens": 20 + tokens * continued})

    return Endpoint(lambda body: turn("61" if whole else "1", usage={"completion_tokens": 2}), probe)


BEGUN = Request("p", [], 1, 0, messages=(Message("user", "5"), Message("assistant", "6")))


def test_turns_of_the_assistant_are_continued_in_one_way():
    assert started(Fleet(begun(1, whole=True), begun(1, whole=True)), "chat", BEGUN) == [
        Completion(None, "1", "stop", counted=2)
    ]
    with pytest.raises(
        InputError, match=r"http.* and http.* continue turns of the assistant in different ways; use one"
    ):
        started(Fleet(begun(1, whole=True), begun(1)), "chat", BEGUN)
    with pytest.raises(InputError, match="does not continue a turn of the assistant"):
        started(Fleet(begun(5), begun(5)), "chat", BEGUN)


def test_a_server_that_comes_back_and_continues_otherwise_stays_out(capsys):
    fleet = Fleet(begun(1), begun(1))
    dies, differs = fleet.endpoints[0], begun(1, whole=True)

    async def work(urls):
        engine = engine_at(urls, "chat", give_up_after=30.0)
        await answered(engine, [BEGUN], close=False)
        dies.answers = lambda body: fleet.die(0, fleet.start(0, differs))
        await answered(engine, [BEGUN], close=False)
        await until(lambda: len(differs.probed) >= 8)
        assert engine.status() == "1 of 2 servers"
        await engine.aclose()

    fleet.run(work)
    assert not differs.asked
    line = "continues a turn of the assistant in another way than the servers before it; it is not used"
    assert capsys.readouterr().err.count(line) == 1
