"""Everything that a pipeline writes has the permissions that the user's umask gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.helpers import recipes

ROOT = Path(__file__).parents[1]


# In a process of its own: fsspec, through which Lightning saves, reads the umask once.
_RUN = """
import json, sys
from sampling.__main__ import main as sampling
from stepverify.cli import main as stepverify
for program, *args in json.loads(sys.argv[1]):
    {"sampling": sampling, "stepverify": stepverify}[program](args)
"""


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o027, 0o022], ids=oct)
def test_colleagues_can_read_what_fits_and_stages_write(tmp_path: Path, umask: int, tiny_model_dir: Path):
    """The small quickstart; a fit of adapters; and the stages that it lacks."""
    out = tmp_path / "out"
    commands = recipes.small_quickstart(out, tiny_model_dir)
    lora = {"path": str(tiny_model_dir), "lora": {"rank": 2}}
    prm = commands[6]
    assert "lit_configs/quickstart/07_prm.yaml" in prm
    adapter = {"class_path": "HuggingFaceExport", "init_args": {"adapter": True}}
    commands += [
        [*prm, "--trainer.default_root_dir", f"{out}/lora", "--model.init_args.backbone", json.dumps(lora), f"--trainer.callbacks={json.dumps(adapter)}"],
        ["sampling", "select", "--input", f"{out}/scores_test", "--verifier", "prm", "--total", "2", "--unanswered", "incorrect",
         "--output", f"{out}/sheets"],
        ["sampling", "convert", "--input", f"{out}/labels_train", "--output", f"{out}/converted/records.jsonl"],
        ["sampling", "compare", "--labels", json.dumps({"a": f"{out}/labels_train", "b": f"{out}/labels_train"}),
         "--reference", "a", "--output", f"{out}/compared"],
        ["sampling", "grade", "--input", f"{tmp_path}/pairs.jsonl", "--output", f"{out}/graded.jsonl"],
    ]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text('{"id": "1", "gold": "2", "pred": "2"}\n')
    done = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(commands)], cwd=ROOT, umask=umask, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = [path for path in out.rglob("*") if not path.is_symlink()]
    for name in ("manifest.json", "model.safetensors", "adapter_model.safetensors", "tokenizer.json", "accuracy.png",
                 "part-00000.jsonl", "last.ckpt", "config.yaml", "report.html", "records.jsonl"):  # fmt: skip
        assert any(path.name == name for path in out.rglob("*")), name
    assert {p.parent.name for p in found if p.name == "manifest.json"} >= {"samples_train", "labels_train", "rollouts"}
    incorrect = {
        str(path.relative_to(out)): oct(mode)
        for path in found
        if (mode := path.stat().st_mode & 0o777) != (0o777 if path.is_dir() else 0o666) & ~umask
    }
    assert not incorrect
