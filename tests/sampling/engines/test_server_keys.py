"""The engine over an OpenAI-compatible endpoint: its settings, and no key in any message."""

import asyncio
import base64
import json

import pytest

from sampling.engines import Engine, ServerEngine
from stepverify.records import InputError
from tests.helpers.endpoints import (
    Endpoint,
    Reply,
    by_number,
    choice,
    engine_at,
    error,
    question,
    run,
    sampled,
    served_by,
)


def test_extra_fields_are_sent_and_are_part_of_what_a_run_is():
    endpoint = Endpoint(by_number)
    extra = {"chat_template_kwargs": {"enable_thinking": False}}
    sampled(endpoint, question(), engine={"extra_body": extra})
    assert extra.items() <= endpoint.asked[0].items()
    with pytest.raises(InputError, match=r"extra_body\.seed: is set by the engine"):
        ServerEngine("m", "http://127.0.0.1:1/v1", extra_body={"seed": 1})
    engine = ServerEngine("a/m", "http://user:pw@127.0.0.1:1/v1", served_as="m", api="chat", extra_body=extra)
    identity = {"engine": "server", "model": "a/m", "served_as": "m", "api": "chat"}
    assert engine.identity() == identity | {"extra_body": extra}
    assert isinstance(engine, Engine)


SECRETS = {"KEY": "sk-1234567890", "OTHER": "header-secret"}
URLS = ["http://{}/v1?token=query-secret", "http://some-token@{}/v1", "http://me:pass-word@{}/v1"]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("stage", ["models", "probe", "answer", "status", "unreachable", "redirect"])
def test_no_secret_is_in_any_message(url, stage, monkeypatch, capsys):
    """A server that sends back everything that it got, at every stage; what is sent holds the secrets all the same."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    keys = {} if "@" in url else {"api_key_env": "KEY"}
    pair = base64.b64encode(b"me:pass-word").decode()
    hidden = [*SECRETS.values(), "query-secret", "some-token", "pass-word", pair]

    def tell(body, status=400):
        return error(status, f"you sent {endpoint.heads[-1]} {' '.join(hidden)}")

    def answers(body):
        return choice(finish=endpoint.heads[-1]) if stage == "answer" else tell(body)

    endpoint = Endpoint(answers, (lambda body: tell(body, 401)) if stage == "probe" else None)
    if stage == "models":
        endpoint.models = tell({}, 403) if endpoint.heads else Reply({"data": [{"id": " ".join(hidden)}]})
    if stage == "redirect":
        endpoint.models = Reply(b"", 302, {"Location": f"http://me:pass-word@h/{'/'.join(hidden)}?key=query-secret"})

    async def main(base):
        place = "127.0.0.1:1" if stage == "unreachable" else base.removeprefix("http://").removesuffix("/v1")
        engine = engine_at(url.format(place), headers_env={"X-Other": "OTHER"}, max_retries=1, **keys)
        assert not any(secret in repr(vars(engine)) + json.dumps(engine.identity()) for secret in SECRETS.values())
        await served_by(engine, question())

    with pytest.raises(InputError) as raised:
        run(endpoint, main)
    said = str(raised.value) + capsys.readouterr().err + repr(raised.value.__cause__)
    assert "\n" not in str(raised.value)
    used = [s for s in hidden if s in "".join(endpoint.heads)] or hidden
    assert not [secret for secret in used if secret in said], said
    if stage != "unreachable":
        assert "X-Other: header-secret" in endpoint.heads[0]
        sent = {"token": "Bearer sk-1234567890", "some-token": "Basic", "me": f"Basic {pair}"}
        assert any(f"Authorization: {value}" in endpoint.heads[0] for value in sent.values())


def test_keys_that_are_missing_or_cannot_be_sent(monkeypatch):
    monkeypatch.delenv("KEY", raising=False)
    monkeypatch.setenv("BAD", "a\nb")
    for keys, line in (
        ({"api_key_env": "KEY"}, "api_key_env: the environment variable KEY is not set"),
        ({"headers_env": {"api-key": "KEY"}}, r"headers_env\.api-key: the environment variable KEY is not set"),
        ({"api_key_env": "BAD"}, "api_key_env: the value of the environment variable BAD cannot be sent"),
        ({"headers_env": {"a b": "PATH"}}, "headers_env: 'a b' is not the name of a header"),
    ):
        with pytest.raises(InputError, match=line):
            sampled(Endpoint(by_number), question(), engine=keys)
    with pytest.raises(InputError, match="base_url: holds a user or password beside another key"):
        asyncio.run(served_by(engine_at("http://u:p@127.0.0.1:1/v1", api_key_env="PATH"), question()))


@pytest.mark.parametrize(
    ("key", "value"),
    [("max_in_flight", 0), ("max_retries", -1), ("timeout", 0.0), ("give_up_after", float("nan")), ("api", "rest"),
     ("refused", "maybe")],
)  # fmt: skip
def test_bad_settings(key, value):
    with pytest.raises(InputError, match=f"{key}: expected .*, got '?{value}"):
        ServerEngine("m", "http://127.0.0.1:1/v1", **{key: value})


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://h/v1", "http:///v1", "http://h:99999/v1", "http://[h/v1"])
def test_bad_urls(url):
    with pytest.raises(InputError, match="base_url: expected the URL of an endpoint, such as http://localhost:8000/v1"):
        ServerEngine("m", url)
