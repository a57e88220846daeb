"""Every command of every script in ``lit_configs/`` is understood: its options exist, and their values have the correct types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).parents[1]
CHOICES: dict[str, list[dict[str, str]]] = {
    "gsm8k/run.sh": [{}, {"GENERATOR": "g", "VERIFIER": "v", "DATA": "d", "DTYPE": "float32"}],
    "gsm8k/recorded/run.sh": [{}, {"GENERATOR": "g", "DATA": "d", "SKIP": "s.jsonl"}],
    "math_prm800k/run.sh": [
        {},
        {"MODEL": "m", "OVERLAY": "lit_configs/overlays/lora.yaml", "SELECT": "1", "TWO_STAGE": "1", "LARGE_MODEL": "l"},
    ],
    "math_prm800k/shift.sh": [{"MODEL": "m", "TAG": "<t>"}],
    "math_shepherd/run.sh": [{}, {"MODEL": "m", "DATA": "d", "DTYPE": "float32"}],
    "math_shepherd/recorded/run.sh": [{}, {"GENERATOR": "g", "DATA": "d", "PROCESSBENCH": "p", "LABELS": "binary_search"}],
    "math_shepherd/strategies.sh": [{}, {"MODEL": "m", "DATA": "d"}, {"GENERATOR": "g"}],
    "quickstart/run.sh": [{}],
    "released/run.sh": [{"DATA": "d"}],
}  # fmt: skip
RECORDER = """#!{python}
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    print(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]), file=file)
"""


def commands(script: str, choices: dict[str, str], tmp_path: Path) -> list[list[str]]:
    """What a script would run, in a copy of the recipes, so that nothing of an earlier run is in its way."""
    (tmp_path / "bin").mkdir()
    for name in ("stepverify", "sampling"):
        (tmp_path / "bin" / name).write_text(RECORDER.format(python=sys.executable))
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "lit_configs").symlink_to(ROOT / "lit_configs")
    kept = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    own = {"PATH": path, "RECORD": str(tmp_path / "commands")}
    subprocess.run(
        ["bash", str(tmp_path / "lit_configs" / script)], env=kept | own | choices, cwd=tmp_path, check=True, timeout=60,
        capture_output=True,
    )  # fmt: skip
    return [json.loads(line) for line in (tmp_path / "commands").read_text().splitlines()]


def test_every_script_is_known():
    found = {str(path.relative_to(ROOT / "lit_configs")) for path in ROOT.glob("lit_configs/**/*.sh")}
    assert found == CHOICES.keys()


@pytest.mark.parametrize(
    ("script", "choices"),
    [(script, choices) for script, several in CHOICES.items() for choices in several],
    ids=lambda value: value if isinstance(value, str) else "+".join(value) or "plain",
)
def test_every_command_of_a_script_is_understood(script, choices, tmp_path, capsys, monkeypatch):
    from sampling.__main__ import main as sampling
    from stepverify.trainer import run as stepverify

    monkeypatch.chdir(ROOT)
    for program, *args in commands(script, choices, tmp_path):
        with pytest.raises(SystemExit) as done:
            {"sampling": sampling, "stepverify": stepverify}[program]([*args, "--print_config"])
        assert not done.value.code, f"{program} {' '.join(args)}\n{capsys.readouterr().err}"
