"""Shared fixtures. Nothing heavy is imported here: torch and transformers load with the first test that needs them."""

import os

# Read when the libraries are imported, so they stand before all else.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import atexit
import gc
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import pytest
from hypothesis import settings
from tqdm import tqdm

from stepverify.records import Problem, Solution

ROOT = Path(__file__).parents[1]

# Encoded examples are kept for this run of the tests alone; processes that tests start use the same folder.
os.environ["STEPVERIFY_CACHE"] = tempfile.mkdtemp(prefix="stepverify-tests-")
atexit.register(shutil.rmtree, os.environ["STEPVERIFY_CACHE"], ignore_errors=True)

# No test cuts the power, so nothing that is written here has to reach the disk: tests that write wait a sixth of their time for it.
os.fsync = lambda descriptor: None

# What is imported stays: nothing is looked for in it, neither now nor by the collections of the tests.
gc.disable()


def pytest_collection_finish():
    gc.enable()
    gc.freeze()


# A lock of this process: tqdm's own one is shared by forked processes, and one that a test kills would keep it for ever.
tqdm.set_lock(threading.RLock())

# The weekly run asks for more: EXAMPLES=thorough make test.
settings.register_profile("house", deadline=None, max_examples=20)
settings.register_profile("thorough", deadline=None, max_examples=500)
settings.load_profile("house")

# The character tokenizer: digit d is 20 + d.
CHARACTERS = {
    "<pad>": 0, "<eos>": 1, "<unk>": 2, "<bos>": 3, "<step>": 4,
    "\n": 5, "Q": 6, "A": 7, "+": 8, "-": 9, "=": 10, "a": 11, "b": 12, "c": 13, " ": 14, "#": 15, ":": 16,
    **{str(digit): 20 + digit for digit in range(10)},
}  # fmt: skip


@pytest.fixture(scope="session")
def root():
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def base():
    """Folder of the quickstart's model: a tiny Qwen2 config and a word-level tokenizer, no weights."""
    return ROOT / "lit_configs" / "quickstart" / "base"


@pytest.fixture(scope="session")
def tokenizer(base):
    """The word-level tokenizer of the quickstart."""
    from stepverify.data.encode import load_tokenizer

    return load_tokenizer(str(base))


def _character_tokenizer(*, bos):
    from tokenizers import AddedToken, Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(WordLevel(CHARACTERS, unk_token="<unk>"))
    inner.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    inner.add_special_tokens(["<pad>", "<eos>", "<unk>", "<bos>"])
    inner.add_tokens([AddedToken("<step>", normalized=False)])
    if bos:
        inner.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", CHARACTERS["<bos>"])])
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"} | ({"bos_token": "<bos>"} if bos else {})
    return PreTrainedTokenizerFast(tokenizer_object=inner, name_or_path="characters", **names)


@pytest.fixture(scope="session")
def characters():
    """A tokenizer with a token for each character of a small table (CHARACTERS above), and no BOS, as Qwen."""
    return _character_tokenizer(bos=False)


@pytest.fixture(scope="session")
def characters_bos():
    """The same that begins every text with ``<bos>`` = 3, as Llama."""
    return _character_tokenizer(bos=True)


@pytest.fixture(scope="session")
def single_thread():
    """PyTorch on one thread."""
    import torch

    torch.set_num_threads(1)


def _write_model(base, tokenizer, folder, **changes):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(base), **changes)).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_model_dir(base, tokenizer, tmp_path_factory, single_thread):
    """Folder of the quickstart's model with random weights and its tokenizer, as a hub download would be."""
    return _write_model(base, tokenizer, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def one_layer_dir(base, tokenizer, tmp_path_factory, single_thread):
    """The same with one layer of the three, for fits: most of a step this small is what each layer calls."""
    from tests.helpers.runs import BACKBONE

    return _write_model(base, tokenizer, tmp_path_factory.mktemp("models") / "one", **BACKBONE["overrides"])


@pytest.fixture(scope="session")
def outcome(tiny_model_dir, tmp_path_factory):
    """Export of a small outcome verifier; its solutions are in :mod:`tests.helpers.exports`."""
    from tests.helpers.exports import write_outcome

    return write_outcome(tiny_model_dir, tmp_path_factory.mktemp("exports") / "outcome")


@pytest.fixture(scope="session")
def process(tiny_model_dir, tmp_path_factory):
    """Export of a small process reward model; its solutions are in :mod:`tests.helpers.exports`."""
    from tests.helpers.exports import write_process

    return write_process(tiny_model_dir, tmp_path_factory.mktemp("exports") / "process")


@pytest.fixture
def warned():
    """What was warned of, as one text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield lambda: "\n".join(str(w.message) for w in caught)


@pytest.fixture(scope="session")
def make_problem():
    """``make_problem(3, answer="5")``: a small problem ``p/3``."""

    def make(number=0, **known):
        return Problem(**{"id": f"p/{number}", "problem": f"a = {number}"} | known)

    return make


@pytest.fixture(scope="session")
def make_solution():
    """``make_solution(["a = 1"], sample=2)``: solution ``p/0#2``."""

    def make(steps=("1",), number=0, sample=0, **known):
        own = {"id": f"p/{number}#{sample}", "problem_id": f"p/{number}", "problem": f"a = {number}"}
        return Solution(**own | {"steps": list(steps)} | known)

    return make


def _folder(variable, what):
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names the folder with {what}")
    return Path(value)


@pytest.fixture(scope="session")
def data_folder():
    """Folder of the public data sets, from STEPVERIFY_DATA."""
    return _folder("STEPVERIFY_DATA", "the data sets (gsm8k/train.jsonl.gz, ...)")


@pytest.fixture(scope="session")
def models_folder():
    """Folder of small public models, from STEPVERIFY_MODELS."""
    return _folder("STEPVERIFY_MODELS", "the models (smollm2-135m, qwen2.5-coder-0.5b)")


@pytest.fixture(scope="module")
def ray_here(root):
    """Ray on this machine, whose actors find the tests."""
    import ray

    from sampling.runtime.replicas import connected
    from stepverify.records import InputError

    before = signal.getsignal(signal.SIGTERM), sys.excepthook
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(root))
        try:
            connected(None)
        except InputError as error:  # a sandbox may forbid what Ray needs
            pytest.skip(f"Ray cannot be started here: {error}")
        assert (signal.getsignal(signal.SIGTERM), sys.excepthook) == before
        yield
        ray.shutdown()
