"""A real llama.cpp server, started on loopback: chats, text, and turns that are continued.

    pip install xllamacpp    # llama.cpp's own server, as a wheel
    STEPVERIFY_MODELS=folder python -m pytest -m slow tests/sampling/engines/test_llama_server.py

The folder holds ``smollm2-135m/model.gguf``.
"""

import contextlib
import importlib.util
import re
import subprocess
import sys
import time

import pytest

from sampling.engines import Message, Request, SamplingOptions, ServerEngine
from stepverify.records import InputError
from tests.helpers.engines import complete_all

pytestmark = pytest.mark.slow

SERVE = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.model_alias = sys.argv[1], {"smol"}
params.n_ctx, params.n_parallel, params.port, params.cpuparams.n_threads = 2048, 4, 0, 1
server = xllamacpp.Server(params)
print("ready at", server.listening_address, flush=True)
sys.stdin.read()  # until the test ends, however it ends
"""


@pytest.fixture(scope="module")
def url(models_folder, tmp_path_factory):
    gguf = models_folder / "smollm2-135m" / "model.gguf"
    if importlib.util.find_spec("xllamacpp") is None or not gguf.is_file():
        pytest.skip("needs llama.cpp's server (pip install xllamacpp) and smollm2-135m/model.gguf")
    log = tmp_path_factory.mktemp("llama") / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(gguf)], stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        until = time.monotonic() + 300
        while not (found := re.search(r"ready at (http://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(0.2)
        yield f"{found[1]}/v1"
    finally:
        process.kill()
        with contextlib.suppress(BrokenPipeError):
            process.communicate()


def complete(engine, request, **options):
    return complete_all(engine, [request], SamplingOptions(**{"temperature": 0.0, "max_tokens": 8} | options))["r"]


def engine(url, api):
    return ServerEngine("smol", url, api=api, timeout=250.0, max_in_flight=4)


COUNT = (Message("user", "Count from 1 to 9."), Message("assistant", "1, 2, 3, 4,"))


def test_text_is_completed_with_seeds_stop_texts_and_top_k(url, capsys):
    """The model counts on; the server takes all options, and no token ids are returned."""
    text = engine(url, "completions")
    request = Request("r", [], 2, 7, prompt="1 2 3 4")
    counted, _ = complete(text, request)
    assert counted.text.split()[:3] == ["5", "6", "7"]
    assert (counted.token_ids, counted.finish, counted.num_tokens) == (None, "length", 8)
    assert complete(text, request, stop=["6"])[0].text.strip() == "5"
    first, second = complete(text, request, temperature=1.5, top_k=50)
    assert first.text != second.text
    assert (first, second) == tuple(complete(text, request, temperature=1.5, top_k=50))
    assert "/completions with prompts as text; no token ids are returned" in capsys.readouterr().err


def test_a_turn_is_continued_and_only_what_follows_is_returned(url):
    """llama.cpp returns the whole turn."""
    chat = engine(url, "chat")
    (continued,) = complete(chat, Request("r", [], 1, 7, messages=COUNT))
    assert continued.text.replace(",", "").split()[:2] == ["5", "6"]
    assert continued.num_tokens == 8
    (answered,) = complete(chat, Request("r", [], 1, 7, messages=COUNT[:1]))
    assert answered.finish == "length"


def test_what_is_refused(url):
    with pytest.raises(InputError, match="serves 'smol', not 'other'"):
        complete(ServerEngine("other", url, api="chat"), Request("r", [], 1, 7, messages=COUNT[:1]))
    long = Request("r", [], 1, 7, prompt="one two three " * 2000)
    with pytest.raises(InputError, match=r"^r: http.* error 400: .*context"):
        complete(engine(url, "completions"), long)
