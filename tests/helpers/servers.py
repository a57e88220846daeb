"""The scenarios of hostile servers: what they answer, and what has to come of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sampling.engines import Completion, SamplingOptions
from stepverify.records import InputError
from tests.helpers.endpoints import MODELS, Endpoint, Reply, choice, engine_at, error, question, served_by, turn

GOOD = Completion([21], "1", "stop")


@dataclass(frozen=True)
class Scenario:
    """One behaviour of a server.

    Attributes:
        name: what the server does.
        answers: to the attempts at a completion, in turn; the final one is repeated.
        expected: ``kept`` (the completion is returned), ``retried`` (after further attempts), ``refused`` (the prompt is
            skipped), or a pattern of the one line with which the run ends.
        form: of prompts: tokens, text or chat.
        options: keys of the engine.
        sampling: options of sampling.
        probe: answer to the engine's first requests, or a function of their bodies.
        models: answer to the list of models.
    """

    name: str
    answers: Sequence[Any]
    expected: str
    form: str = "tokens"
    options: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    probe: Any = None
    models: Any = field(default_factory=lambda: MODELS)


def outcome(scenario: Scenario) -> str:
    """Run a scenario: kept, retried, refused, or the line with which it ends.

    An exception that is no InputError is raised, and so is what would not end.
    """
    return asyncio.run(asyncio.wait_for(_outcome(scenario), 20))


async def _outcome(scenario: Scenario) -> str:
    def answers(body: dict[str, Any]) -> Any:
        return scenario.answers[min(len(endpoint.asked), len(scenario.answers)) - 1]

    given = scenario.probe
    probe = given if given is None or callable(given) else lambda body: given
    if probe is None and scenario.form != "tokens":
        probe = lambda body: turn() if "messages" in body else choice(ids=None)  # noqa: E731
    endpoint = Endpoint(answers, probe, scenario.models)
    async with endpoint.serving() as url:
        engine = engine_at(url, scenario.form, **scenario.options)
        options = SamplingOptions(**({"max_tokens": 8} | scenario.sampling))
        try:
            (found,) = await served_by(engine, question(scenario.form), options)
        except InputError as line:
            return str(line)
    if found.finish == "refused":
        return "refused"
    found.text.encode()  # readable
    assert found.finish in {"stop", "length"}
    assert found.num_tokens <= 8
    return "kept" if len(endpoint.asked) == 1 else "retried"


def as_expected(scenario: Scenario, found: str) -> bool:
    """Check an outcome; a line must be one line, and short."""
    if scenario.expected in {"kept", "retried", "refused"}:
        return found == scenario.expected
    return re.search(scenario.expected, found) is not None and "\n" not in found and len(found) < 700


def _passing(name: str, fault: Any, **more: Any) -> Scenario:
    """A fault that happens once."""
    return Scenario(f"{name}, once", [fault, choice()], "retried", **more)


def _lasting(name: str, fault: Any, line: str, **more: Any) -> Scenario:
    return Scenario(f"{name}, always", [fault], line, **more)


_NESTED = b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
_BAD_ANSWERS: list[tuple[str, Any, str]] = [
    ("no JSON", Reply(b"<html>busy</html>"), "the answer is no JSON: '<html>busy</html>'"),
    ("an empty body", Reply(b""), "the answer is no JSON"),
    ("no UTF-8", Reply(b'{"choices": "\xff"}'), "the answer is no JSON"),
    ("NaN", Reply(b'{"choices": NaN}'), "the answer is no JSON"),
    ("a number of 5,000 digits", Reply(b'{"choices": ' + b"9" * 5000 + b"}"), "the answer is no JSON"),
    ("JSON nested 100,000 deep", Reply(_NESTED), "the answer is no JSON"),
    ("JSON that is cut off", Reply(json.dumps(choice()).encode()[:-3]), "the answer is no JSON"),
    ("a list", [1, 2], r"bad answer: the answer: expected an object; the server sent \[1, 2\]"),
    ("null", Reply(b"null"), "bad answer: the answer: expected an object"),
    ("no choices", {"id": 1}, "bad answer: choices: missing"),
    ("choices of another type", {"choices": {"0": 1}}, "choices: expected list, got dict"),
    ("no choice", {"choices": []}, "expected 1 choice, got 0"),
    ("two choices", {"choices": choice()["choices"] * 2}, "expected 1 choice, got 2"),
    ("a choice that is text", {"choices": ["1"]}, r"choices\[0\]: expected an object"),
    ("another index", {"choices": [choice()["choices"][0] | {"index": 3}]}, r"index: expected 0, got 3"),
    ("a text that is a number", choice(7), r"choices\[0\].text: expected str, got int"),
    ("no text", choice(None), r"choices\[0\].text: expected str, got NoneType"),
    ("half of a surrogate pair", Reply(json.dumps(choice("\ud835")).encode()), "no JSON|half of a surrogate pair"),
    ("more text than tokens can hold", choice("1" * 9000), "a text of 9000 characters, though 8 tokens"),
    ("no finish reason", choice(finish=None), "finish_reason: expected str, got NoneType"),
    ("an unknown finish reason", choice(finish="tired"), "finish_reason 'tired'"),
    ("a tool call", choice(finish="tool_calls"), "finish_reason 'tool_calls'"),
    ("token ids that are text", choice(ids="21"), "token_ids: expected a list of token ids"),
    ("token ids that are floats", choice(ids=(21.0,)), "token_ids: expected a list of token ids"),
    ("token ids that are booleans", choice(ids=(True,)), "token_ids: expected a list of token ids"),
    ("a negative token id", choice(ids=(-1,)), "token_ids: expected a list of token ids"),
    ("a token id beyond the vocabulary", choice(ids=(5000,)), "token_ids: expected a list of token ids"),
    ("more tokens than asked for", choice(ids=(21,) * 9), "token_ids: 9 ids, though 8 were asked for"),
    ("no token ids beside a text", choice(ids=()), "token_ids: empty beside a text"),
    ("token ids no longer", choice(ids=None), "token_ids: missing, though it returned token ids before"),
    ("usage that is a list", choice(usage=[1]), "usage: expected dict, got list"),
    ("a negative usage", choice(usage={"prompt_tokens": -1}), "usage: impossible counts"),
    ("a usage that is text", choice(usage={"prompt_tokens": "7"}), "usage.prompt_tokens: expected int, got str"),
    (
        "more cached than read", choice(usage={"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 8}}),
        "usage: 8 cached tokens of a prompt of 7",
    ),
]  # fmt: skip
_CUT = Reply(json.dumps(choice()).encode(), length=5000, close=True)
_FAULTS: list[tuple[str, Any, str]] = [
    *((f"error {status}", error(status), rf"p#0: http://127.*: error {status}: says the server \(3 attempts\)")
      for status in (408, 409, 500)),
    ("silence", Reply(choice(), wait=30), r"no complete answer within 0\.4 seconds"),
    ("a byte every 50 ms", Reply(choice(), drip=0.05), r"no complete answer within 0\.4 seconds"),
    ("an answer without end", Reply(b" " * (2 << 20)), "the answer is longer than 1,056,768 bytes"),
]  # fmt: skip
_AWAY: list[tuple[str, Any, str]] = [
    *((f"error {status}", error(status), f"error {status}") for status in (429, 502, 503, 504)),
    ("a connection that is closed", Reply(raw=b""), "lost the connection"),
    ("an answer that ends early", _CUT, "broken answer"),
    ("no HTTP", Reply(raw=b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "broken answer"),
    ("an aborted completion", choice(finish="abort"), "finish_reason 'abort'"),
]  # fmt: skip
_FATAL: list[tuple[str, Any, str]] = [
    ("error 401", error(401), "error 401: says the server; the server wants a key: set api_key_env"),
    ("error 403", error(403), "error 403: says the server; the server wants a key"),
    ("error 404", error(404, "model gone"), "error 404: model gone; the URL of .* usually ends in /v1"),
    ("error 402", error(402), "no credit left"),
    ("error 429 for want of credit", error(429, "quota", code="insufficient_quota"), "no credit left"),
    ("a redirect", Reply(b"", 307, {"Location": "https://elsewhere/v2?key=s3cr3t"}),
     "redirects to https://elsewhere/v2; set base_url"),
]  # fmt: skip
_REFUSED: list[tuple[str, Any]] = [
    *((f"error {status}", error(status, "too long")) for status in (400, 413, 422)),
    ("a content filter", choice(finish="content_filter")),
]

SCENARIOS: list[Scenario] = [
    Scenario("a completion", [choice()], "kept"),
    Scenario("the reason eos_token", [choice(finish="eos_token")], "kept"),
    Scenario("a completion in pieces", [Reply(choice(), drip=0.0005)], "kept"),
    Scenario("unknown fields", [choice(surprise={"a": [1]})], "kept"),
    *(_passing(name, fault) for name, fault, _ in _BAD_ANSWERS),
    *(_lasting(name, fault, rf"^p#0: http://127.*{line}.*\(3 attempts\)$") for name, fault, line in _BAD_ANSWERS),
    *(_passing(name, fault, options={"timeout": 0.4}) for name, fault, _ in _FAULTS),
    *(_passing(name, fault) for name, fault, _ in _AWAY),
    *(_lasting(name, fault, line, options={"give_up_after": 5.0, "timeout": 0.4}) for name, fault, line in _FAULTS),
    *(_lasting(name, fault, line, options={"give_up_after": 0.2}, probe=choice()) for name, fault, line in _AWAY),
    *(_lasting(name, fault, line) for name, fault, line in _FATAL),
    *(_lasting(name, fault, "^p#0: .*; `refused: skip` of the engine leaves such prompts out$")
      for name, fault in _REFUSED),
    *(Scenario(f"{name}, skipped", [fault], "refused", options={"refused": "skip"}) for name, fault in _REFUSED),
    # ── at the start ──
    Scenario("other models", [choice()], "serves 'a', 'b', not 'm'", models={"data": [{"id": "a"}, {"id": "b"}]}),
    Scenario("no model", [choice()], "serves no model, not 'm'", models={"data": []}),
    Scenario("no list of models", [choice()], "lists no models; the URL", models={"hello": 1}),
    Scenario("a list of models without names", [choice()], "lists no models", models={"data": [{"id": 7}]}),
    Scenario("a page in place of models", [choice()], "the answer is no JSON: '<html>'", models=Reply(b"<html>")),
    Scenario("no path for models", [choice()], "kept", models=error(404)),
    Scenario("a bare list of models", [choice()], "kept", models=[{"id": "m"}]),
    Scenario("a key wanted for models", [choice()], "error 401: .*set api_key_env", models=error(401)),
    Scenario("an impossible context length", [choice()], "kept", models={"data": [{"id": "m", "max_model_len": -1}]}),
    Scenario("no path for completions", [choice()], "refuses a request for 8 tokens: .*error 404", probe=error(404)),
    Scenario("another tokenizer", [choice()], "another tokenizer than 'words'", probe=choice("23", ids=(24, 25))),
    # ── without token ids, and chats ──
    Scenario("text alone", [choice(ids=None)], "kept", form="text"),
    Scenario("text, more tokens than asked for", [choice(ids=None, usage={"completion_tokens": 9})],
             "completion_tokens: 9, though 8 were asked for", form="text"),
    Scenario("a text of no tokens", [choice(ids=None, usage={"completion_tokens": 0})], "0 beside a text", form="text"),
    Scenario("stop texts that are ignored", [choice("1,2", ids=None)], "kept", form="text", sampling={"stop": [","]}),
    Scenario("stop ids that cannot be seen", [], r"sampling\.stop_ids: .* no token ids", form="text",
             sampling={"stop_ids": [3]}),
    Scenario("top_k that is refused", [], r"sampling\.top_k: .* refuses top_k", form="text", sampling={"top_k": 4},
             probe=lambda body: error(400, "Unrecognized argument: top_k") if "top_k" in body else choice(ids=None)),
    Scenario("a turn", [turn()], "kept", form="chat"),
    Scenario("a turn without content", [turn(None, "length")], "kept", form="chat"),
    Scenario("a turn of the user", [turn() | {"choices": [{"index": 0, "finish_reason": "stop", "message": {
        "role": "user", "content": "1"}}]}], "role: expected 'assistant', got 'user'", form="chat"),
    Scenario("a turn that is text", [{"choices": [{"index": 0, "finish_reason": "stop", "message": "1"}]}],
             "message: expected dict, got str", form="chat"),
    Scenario("a turn with a list of contents", [turn([{"type": "text", "text": "1"}])],
             "content: expected str, got list", form="chat"),
]  # fmt: skip
