"""Log-probabilities of the first token: of the embedded engine, and of servers in both of OpenAI's forms."""

import math

import pytest

from sampling.engines import Completion, Request, SamplingOptions, TransformersEngine
from stepverify.records import InputError
from tests.helpers.endpoints import Endpoint, choice, question, sampled, turn
from tests.helpers.engines import PROBLEMS, complete_all


def test_they_are_those_of_the_model(tiny_model_dir):
    """At temperature 1 whatever the temperature is, for the first token after prompt and prefix, beside requests that
    ask for none; a completion of several tokens has them once."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    engine = TransformersEngine(str(tiny_model_dir), device="cpu", batch_size=4)
    prompts = [engine.tokenizer.encode(text) for text in PROBLEMS]
    requests = [
        Request(str(i), prompt, 2, i, prefix_ids=prompt[:i], top_logprobs=5 * (i > 0))
        for i, prompt in enumerate(prompts)
    ]
    found = complete_all(engine, requests, SamplingOptions(temperature=2.0, max_tokens=8))
    assert [c.top_logprobs for c in found["0"]] == [None, None]
    model = AutoModelForCausalLM.from_pretrained(str(tiny_model_dir))
    for request in requests[1:]:
        with torch.no_grad():
            logits = model(torch.tensor([request.prompt_ids + request.prefix_ids])).logits[0, -1]
        values, ids = logits.log_softmax(-1).topk(5)
        for completion in found[request.key]:
            texts, logprobs = zip(*completion.top_logprobs, strict=True)
            assert list(texts) == [engine.tokenizer.decode([i]) for i in ids.tolist()]
            assert list(logprobs) == pytest.approx(values.tolist(), abs=1e-4)
    many = Request("all", prompts[0], 1, 0, top_logprobs=1 << 20)
    ((completion,),) = complete_all(engine, [many], SamplingOptions(max_tokens=1)).values()
    assert sum(math.exp(value) for _, value in completion.top_logprobs) == pytest.approx(1, abs=1e-5)


TOP = [("7", -0.1), (" 8", -2.5)]
OF_COMPLETIONS = {"tokens": ["7"], "token_logprobs": [-0.1], "top_logprobs": [dict(TOP), {"9": 0.0}]}
OF_CHATS = {
    "content": [
        {"token": "7", "logprob": -0.1, "top_logprobs": [{"token": t, "logprob": v, "bytes": []} for t, v in TOP]},
        {"token": "9", "logprob": 0.0, "top_logprobs": [{"token": "9", "logprob": 0.0}]},
    ]
}


def answered(form, logprobs):
    made = turn("7") if form == "chat" else choice("7", ids=(27,) if form == "tokens" else None)
    made["choices"][0]["logprobs"] = logprobs
    return made


@pytest.mark.parametrize(
    ("form", "logprobs", "asked"),
    [
        ("tokens", OF_COMPLETIONS, {"logprobs": 20}),
        ("text", OF_COMPLETIONS, {"logprobs": 20}),
        ("text", OF_CHATS, {"logprobs": 20}),  # llama.cpp's completions
        ("chat", OF_CHATS, {"logprobs": True, "top_logprobs": 20}),
    ],
)
def test_they_are_asked_of_servers_and_read(form, logprobs, asked):
    endpoint = Endpoint(lambda body: answered(form, logprobs), lambda body: answered(form, None))
    request = question(form)
    request.top_logprobs = 20
    (found,) = sampled(endpoint, request, form)
    assert found.top_logprobs == TOP
    (body,) = endpoint.asked
    assert asked.items() <= body.items()
    assert not any("logprobs" in body for body in endpoint.probed)


def test_servers_that_know_token_ids_name_tokens_by_them():
    """Two tokens of the text ``7`` are two, which a mapping of texts could not hold; decoded here."""
    logprobs = {"top_logprobs": [{"token_id:27": -0.5, "token_id:1": -2.0, "7": -3.0}]}
    endpoint = Endpoint(lambda body: answered("tokens", logprobs), lambda body: answered("tokens", None))
    request = question()
    request.top_logprobs = 3
    (found,) = sampled(endpoint, request)
    assert found.top_logprobs == [("7", -0.5), ("", -2.0), ("7", -3.0)]
    assert endpoint.asked[0]["return_tokens_as_token_ids"] is True


def test_nothing_is_asked_that_is_not_wanted():
    """Nor kept, where a server gives it by itself."""
    endpoint = Endpoint(lambda body: answered("tokens", OF_COMPLETIONS))
    assert sampled(endpoint, question()) == [Completion([27], "7", "stop")]
    assert "logprobs" not in endpoint.asked[0]


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}, {"top_logprobs": []}])
def test_a_server_that_gives_none(logprobs):
    request = question("chat")
    request.top_logprobs = 20
    (found,) = sampled(Endpoint(lambda body: answered("chat", logprobs)), request, "chat")
    assert (found.text, found.top_logprobs) == ("7", None)


@pytest.mark.parametrize(
    ("logprobs", "message"),
    [
        ({"top_logprobs": [{"7": 0.5}]}, "expected a text and its log-probability, got '7', 0.5"),
        ({"top_logprobs": [{"7": None}]}, "expected a text and its log-probability, got '7', None"),
        ({"content": [{"top_logprobs": [{"token": 7, "logprob": -1}]}]}, "log-probability, got 7, -1"),
        ({"content": ["7"]}, "expected an object"),
        ("high", "logprobs: expected dict, got str"),
    ],
)
def test_what_is_no_log_probability_is_asked_for_again(logprobs, message):
    request = question("text")
    request.top_logprobs = 20
    endpoint = Endpoint(lambda body: answered("text", logprobs), lambda body: answered("text", None))
    with pytest.raises(InputError, match=message):
        sampled(endpoint, request, "text")
    assert len(endpoint.asked) == 3


def test_they_are_no_field_of_the_users():
    with pytest.raises(InputError, match=r"extra_body\.logprobs: is set by the engine"):
        sampled(Endpoint(lambda body: choice()), question(), engine={"extra_body": {"logprobs": 1}})
