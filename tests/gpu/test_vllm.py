"""vLLM on the card: the tests that ``make test-vllm`` runs on a CPU, in processes of their own.

An engine takes its share of the memory and changes threads, seeds and torch.distributed of the process that it lives in.
Budget: 120 s.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from tests.gpu.work import ROOT

pytestmark = pytest.mark.gpu


@pytest.mark.cuda("make test-vllm runs them on a CPU")
@pytest.mark.seconds(130)
@pytest.mark.parametrize("file", ["tests/sampling/engines/test_vllm.py", "tests/sampling/scorers/test_vllm_pooling.py"])
def test_the_tests_of_vllm_pass_on_a_gpu(file, record):
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: install stepverify[vllm]")
    free = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "vllm", file],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env=free,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"{file} took more than 120 s: {str(late.stdout)[-2000:]}")
    last = done.stdout.strip().splitlines()[-1:]
    failed = re.findall(r"^(?:FAILED|ERROR) .*$", done.stdout, re.MULTILINE)
    record(f"vLLM, {file}", result=" ".join(last))
    assert done.returncode == 0, "\n".join([*failed, done.stdout[-3000:]])
    assert "passed" in done.stdout
