"""The engine over an OpenAI-compatible endpoint: what is sent, and in which form."""

import asyncio
from contextlib import aclosing

import pytest

from sampling.engines import CalculatorEngine, Completion, Message, Request, SamplingOptions
from sampling.engines.base import GOLDEN
from stepverify.records import InputError
from tests.helpers.endpoints import (
    Endpoint,
    by_number,
    choice,
    engine_at,
    error,
    number,
    question,
    run,
    sampled,
    served_by,
    turn,
)  # fmt: skip

NEUTRAL = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


def test_completion_i_is_sampled_with_seed_plus_i():
    assert sampled(Endpoint(by_number), question(n=3, seed=7)) == [number(7), number(8), number(9)]


def test_what_is_sent_to_vllm():
    """All that the server or the model's own configuration would else decide; other random numbers after a prefix."""
    endpoint = Endpoint(by_number)
    request = Request("r", [5, 6], 2, 7, [28])
    options = {"temperature": 0.5, "top_p": 0.9, "top_k": 4, "max_tokens": 9, "stop": ["x"], "stop_ids": [3]}
    sampled(endpoint, request, **options)
    expected = {
        "model": "m", "prompt": [5, 6, 28], "max_tokens": 8, "temperature": 0.5, "top_p": 0.9, "top_k": 4,
        "stop": ["x"], "stop_token_ids": [3], "return_token_ids": True, **NEUTRAL,
    }  # fmt: skip
    seeds = sorted(body.pop("seed") for body in endpoint.asked)
    assert seeds == [(7 + GOLDEN) % (1 << 62), (7 + GOLDEN) % (1 << 62) + 1]
    assert [body | {"repeat_penalty": 1.0} for body in endpoint.asked] == [expected | {"repeat_penalty": 1.0}] * 2
    assert len(endpoint.probed) == 1
    assert "authorization" not in endpoint.heads[0].lower()


def test_a_prefix_is_part_of_the_completion():
    """A stop text is found across it: "5" sampled after "4" completes "45"; the text ends before it."""
    endpoint = Endpoint(lambda body: choice("5", "length", (25,)))
    assert sampled(endpoint, Request("r", [5], 1, 0, [24]), stop=["45"]) == [Completion([24, 25], "", "stop")]
    assert sampled(endpoint, Request("r", [5], 1, 0, [24])) == [Completion([24, 25], "45", "length")]


def test_greedy_completions_are_asked_for_once():
    endpoint = Endpoint(by_number)
    assert sampled(endpoint, question(n=5), temperature=0) == [number(0)] * 5
    assert len(endpoint.asked) == 1


def test_the_context_is_the_server_s_unless_it_is_given():
    """198 of 200 tokens leave room for 2, or for 1 of 199; a prompt of 200 is refused here."""
    endpoint = Endpoint(lambda body: choice())
    long = Request("long", [5] * 198, 1, 0)
    sampled(endpoint, long, max_tokens=50)
    sampled(endpoint, long, engine={"max_model_len": 199}, max_tokens=50)
    assert [body["max_tokens"] for body in endpoint.asked] == [2, 2 - 1]
    with pytest.raises(InputError, match="much: the prompt has 200 tokens, the engine takes 200"):
        sampled(endpoint, Request("much", [5] * 200, 1, 0))


STRICT = {"model", "prompt", "messages", "max_tokens", "seed", "temperature", "top_p", "stop"}


def strict(body, answer):
    """OpenAI's own service: names the first argument that it does not know."""
    unknown = sorted(body.keys() - STRICT)
    return error(400, f"Unrecognized request argument supplied: {unknown[0]}") if unknown else answer


def test_fields_that_a_server_refuses_are_left_out_and_said(capsys):
    endpoint = Endpoint(lambda body: strict(body, turn("7", usage={"completion_tokens": 3})),
                        lambda body: strict(body, turn()))  # fmt: skip
    assert sampled(endpoint, question("chat"), "chat", stop=["x"]) == [Completion(None, "7", "stop", counted=3)]
    (body,) = endpoint.asked
    assert body.keys() == STRICT - {"prompt"}
    assert body["messages"] == [{"role": "user", "content": "56"}]
    said = capsys.readouterr().err
    assert "/chat/completions with prompts as messages; no token ids are returned: records hold none" in said
    assert "left out, as the server refuses them: frequency_penalty, min_p, presence_penalty, repeat_penalty" in said


def test_a_refusal_that_names_nothing_leaves_out_what_goes_beyond_openai_first():
    def probe(body):
        return error(422, "bad request") if "min_p" in body else choice(ids=None)

    endpoint = Endpoint(lambda body: choice(ids=None, usage={"completion_tokens": 1}), probe)
    sampled(endpoint, question("text"), "text")
    assert endpoint.asked[0].keys() == STRICT - {"messages", "stop"} | {"presence_penalty", "frequency_penalty"}
    assert endpoint.asked[0]["prompt"] == "56"


def test_reasoning_models_of_openai_take_no_temperature_and_another_limit():
    """An option that the user has set is never left out in silence."""

    def probe(body):
        if "max_tokens" in body:
            return error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "temperature" in body:
            return error(400, "Unsupported value: 'temperature' does not support 0.7 with this model.")
        return turn()

    with pytest.raises(InputError, match=r"sampling\.temperature: .* does not support 0\.7.*; set .*: 1\.0"):
        sampled(Endpoint(by_number, probe), question("chat"), "chat")
    endpoint = Endpoint(lambda body: turn(), probe)
    sampled(endpoint, question("chat"), "chat", temperature=1.0)
    assert endpoint.asked[0]["max_completion_tokens"] == 8
    assert "max_tokens" not in endpoint.asked[0]


@pytest.mark.parametrize("honoured", [True, False])
def test_top_k_is_checked_by_what_it_does(honoured):
    """Of the most likely token alone every seed gives the same text."""

    def probe(body):
        return choice("1" if honoured and body["top_k"] == 1 else str(body["seed"] % 10), ids=None)

    endpoint = Endpoint(lambda body: choice(ids=None, usage={"completion_tokens": 1}), probe)
    if honoured:
        assert sampled(endpoint, question("text"), "text", top_k=5)[0].text == "1"
    else:
        with pytest.raises(InputError, match=r"sampling\.top_k: .* ignores top_k, as its answers show"):
            sampled(endpoint, question("text"), "text", top_k=5)


def test_auto_prefers_token_ids_then_messages_then_text():
    """Only a server that returns token ids gets them; a prompt comes in all three forms."""
    every = Request("r", [25], 1, 0, prompt="5", messages=(Message("user", "5"),))
    for probe, sent in (
        (lambda body: choice(), {"prompt": [25]}),
        (
            lambda body: turn() if "messages" in body else choice(ids=None),
            {"messages": [{"role": "user", "content": "5"}]},
        ),
        (lambda body: error(404) if "messages" in body else choice(ids=None), {"prompt": "5"}),
    ):
        endpoint = Endpoint(lambda body: turn() if "messages" in body else choice(ids=(21,)), probe)
        sampled(endpoint, every)
        assert sent.items() <= endpoint.asked[0].items()


def test_a_prompt_in_a_form_that_the_server_does_not_take():
    with pytest.raises(InputError, match=r"api: chat takes messages, .*; set template: \{chat: true\}"):
        sampled(Endpoint(by_number), question("text"), "chat")
    with pytest.raises(InputError, match="words: has no tokenizer to write the prompt with"):
        sampled(Endpoint(by_number), question("chat"), "text")
    endpoint = Endpoint(by_number, lambda body: choice(ids=None))
    with pytest.raises(InputError, match=r"r: the prompt continues sampled tokens, and http.* returns no token ids"):
        sampled(endpoint, Request("r", [5], 1, 0, [24], prompt="5"))


def continuing(tokens, whole=False):
    """A server that reports a prompt longer by so many tokens where the assistant has begun, and returns the whole turn."""

    def probe(body):
        begun = body["messages"][-1]["role"] == "assistant"
        assert not begun or (body["continue_final_message"] and not body["add_generation_prompt"])
        text = body["messages"][-1]["content"] + "1" if begun and whole else "1"
        return turn(text, usage={"prompt_tokens": 20 + tokens * begun})

    return probe


def test_a_turn_of_the_assistant_is_continued_where_the_server_does_that():
    """The turn costs its one token where it is continued, and those of its end and of another turn where it is not."""
    begun = Request("r", [], 1, 0, messages=(Message("user", "5"), Message("assistant", "6")))
    endpoint = Endpoint(lambda body: turn(usage={"completion_tokens": 2}), continuing(1))
    assert sampled(endpoint, begun, "chat") == [Completion(None, "1", "stop", counted=2)]
    assert endpoint.asked[0]["continue_final_message"] is True
    whole = Endpoint(lambda body: turn("61", usage={"completion_tokens": 2}), continuing(1, whole=True))
    assert sampled(whole, begun, "chat") == [Completion(None, "1", "stop", counted=2)]
    for probe in (continuing(5), lambda body: turn(), lambda body: error(400) if body["messages"][1:] else turn()):
        with pytest.raises(InputError, match=r"does not continue a turn of the assistant, .*; set api: completions"):
            sampled(Endpoint(lambda body: turn(), probe), begun, "chat")


def test_a_turn_of_the_user_is_answered_while_it_is_found_out_whether_turns_are_continued():
    """Its answer stays whole, though it begins like the question."""
    begun = Request("begun", [], 1, 0, messages=(Message("user", "5"), Message("assistant", "6")))
    plain = Request("plain", [], 1, 1, messages=(Message("user", "5"),))
    waiting, known = asyncio.Event(), continuing(1, whole=True)

    async def probe(body):
        if body["messages"][-1]["role"] == "assistant":
            await waiting.wait()
        return known(body)

    async def main(url):
        engine = engine_at(url, "chat")
        async with aclosing(engine):
            both = [asyncio.ensure_future(engine.complete(r, SamplingOptions(max_tokens=8))) for r in (begun, plain)]
            early = await both[1]
            waiting.set()
            late = await engine.complete(plain, SamplingOptions(max_tokens=8))
            return [completion.text for (completion,) in (early, late, await both[0])]

    usage = {"completion_tokens": 2}
    endpoint = Endpoint(lambda body: turn("51" if body["messages"][-1]["role"] == "user" else "61", usage=usage), probe)
    assert run(endpoint, main) == ["51", "51", "1"]


def test_the_calculator_needs_token_ids():
    """Where completions hold none it says so, and does not end in a traceback."""
    endpoint = Endpoint(lambda body: choice("<<1+1=", ids=None), lambda body: choice(ids=None))

    class Codes(type(engine_at("http://h/v1").tokenizer)):
        def encode(self, text, add_special_tokens=False):
            return [ord(c) for c in text]

        def decode(self, ids, skip_special_tokens=True):
            return "".join(map(chr, ids))

    async def main(url):
        engine = engine_at(url)
        engine.__dict__["tokenizer"] = Codes()
        return await served_by(CalculatorEngine(engine), question())

    with pytest.raises(InputError, match="the calculator needs token ids, which this server does not return"):
        run(endpoint, main)
