"""The device, a time limit for each test and for all, and the figures that a run leaves.

Each test has a limit (``@pytest.mark.seconds``; 30 where it says nothing), all of them have STEPVERIFY_GPU_SECONDS (480).
A test over its limit may hang in a kernel, from which Python takes nobody back, so its process is ended; under
``pytest -n 1`` a new process goes on with the next test. One that starts too late is skipped and says so.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import time

# cuBLAS is deterministic with a workspace of a fixed size only; it reads this with its first product.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest

from tests.gpu import report

MODE = os.environ.get("STEPVERIFY_GPU_TESTS", "cuda")  # cpu: everything that a CPU can run, to try the tests themselves
LIMIT = float(os.environ.get("STEPVERIFY_GPU_SECONDS", "480"))
USUAL = 30


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        os.environ["STEPVERIFY_GPU_STARTED"] = str(time.time())  # workers inherit it
        report.begin()


# What matters most comes first: the last ones are left out where the time is over.
ORDER = ("machine", "training", "precision", "attention", "sampling", "throughput", "vllm")


def pytest_collection_modifyitems(items):
    places = {f"test_{name}": place for place, name in enumerate(ORDER)}
    own = {item for item in items if item.nodeid.startswith("tests/gpu/")}
    ordered = iter(sorted((i for i in items if i in own), key=lambda i: places.get(i.path.stem, len(places))))
    items[:] = [next(ordered) if item in own else item for item in items]


def missing() -> str | None:
    """Why there is no device to test on."""
    import torch

    if MODE == "cpu" or torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    return f"torch {torch.__version__} sees no GPU; STEPVERIFY_GPU_TESTS=cpu runs what a CPU can"


def pytest_runtest_setup(item):
    if "gpu" not in item.keywords:
        return
    if reason := missing():
        pytest.skip(reason)
    if MODE == "cpu" and (mark := item.get_closest_marker("cuda")):
        pytest.skip(f"CUDA only: {mark.args[0]}")
    if MODE != "cpu" and left() < 5:
        pytest.skip(f"not run: the {LIMIT:.0f} seconds of STEPVERIFY_GPU_SECONDS are over")


def left() -> float:
    """Seconds until the limit of the whole run."""
    return LIMIT - (time.time() - float(os.environ.get("STEPVERIFY_GPU_STARTED", time.time())))


@pytest.fixture(scope="session")
def device():
    """``cuda``, or ``cpu`` in a dry run."""
    return "cpu" if MODE == "cpu" else "cuda"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of an untrained Llama."""
    from tests.gpu.work import tiny_llama

    return tiny_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder of labelled solutions."""
    from tests.gpu.work import write_solutions

    return write_solutions(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, model, data, device):
    """A run of each kind."""
    from tests.gpu.work import Trained

    return Trained(tmp_path_factory.mktemp("runs"), model, data, device)


@pytest.fixture(autouse=True)
def bounded(request):
    """End the process where the test takes too long, after the traces of all threads are written."""
    mark = request.node.get_closest_marker("seconds")
    seconds = mark.args[0] if mark else USUAL
    # A dry run may share its cores with others.
    seconds = 20 * seconds if MODE == "cpu" else min(seconds, max(left(), 5.0))
    with report.hang_file(request.node.nodeid, seconds) as file:
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)
        yield
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def as_before():
    """Put back what a test changes in torch, free the card, and end a process whose card no longer answers."""
    import torch

    precision, seed = torch.get_float32_matmul_precision(), os.environ.get("PL_GLOBAL_SEED")
    torch.set_float32_matmul_precision("highest")  # no TF32 in comparisons
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision(precision)
    os.environ.pop("PL_GLOBAL_SEED", None)
    if seed is not None:
        os.environ["PL_GLOBAL_SEED"] = seed
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError as error:  # an illegal access stays with the process: every further call would fail
            report.broken(str(error))
            os._exit(3)


@pytest.fixture
def record(request):
    """``record("training", solutions_per_second=12.3)``: figures of this card for the report."""

    def write(name, **figures):
        report.figure(name, request.node.nodeid, figures)

    return write


def pytest_terminal_summary(terminalreporter):
    report.end(terminalreporter, MODE, LIMIT)
