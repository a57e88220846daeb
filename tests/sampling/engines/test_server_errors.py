"""Errors of a server: what is tried again, and what ends in one line."""

import socket
import threading
import time

import pytest

from sampling.engines import ServerEngine
from stepverify.records import InputError
from tests.helpers.endpoints import by_number, choice, requests, sampled, serving


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
