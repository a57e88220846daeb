"""What README.md names is there: make targets, stages, commands, paths, configuration keys."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_paths_exist():
    linked = re.findall(r"\]\((?!https?://)([^)]+)\)", README)
    named = re.findall(r"(?:lit_configs|stepverify|sampling|tests|\.ci)/[\w./]*\w", README)
    assert len(linked) >= 5
    for path in {*linked, *(n for n in named if "run" not in n.split("/")[0])}:
        assert (ROOT / path.rstrip("/")).exists(), path


def test_make_targets_exist():
    targets = set(re.findall(r"make ([a-z-]+)", README))
    assert {"quickstart", "test", "check", "test-vllm", "bench"} <= targets
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets <= known


def test_stages_are_the_programs_own():
    from sampling.__main__ import STAGES

    assert set(re.findall(r"^\| `sampling (\w+)", README, re.MULTILINE)) == STAGES.keys()


def test_programs_answer_help():
    for program, word in (("stepverify.cli", "fit"), ("sampling", "generate")):
        shown = subprocess.run(
            [sys.executable, "-m", program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert word in shown.stdout


def test_the_recipe_in_the_readme_parses(tmp_path: Path, capsys: pytest.CaptureFixture):
    """The YAML block, with the tiny model's folder for the hub id, is a whole configuration of ``fit``."""
    pytest.importorskip("torch")
    from stepverify.cli import main

    block = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1]
    settings = yaml.safe_load(block)
    assert settings["model"]["class_path"] == "stepverify.modules.ProcessRewardModel"
    (tmp_path / "my_prm.yaml").write_text(block)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(tmp_path / "my_prm.yaml"), "--print_config"])
    assert stopped.value.code == 0
    assert "monte_carlo: soft" in capsys.readouterr().out


def test_the_record_in_the_readme_is_a_record():
    """It reads back as a Solution: two steps, two labels, two scores."""
    import json

    from stepverify.jsonl import parse_record
    from stepverify.records import Solution

    block = re.search(r"```json\n(.*?)```", README, re.DOTALL)[1]
    solution = parse_record(Solution, json.loads(block))
    assert len(solution.steps) == len(solution.step_labels) == len(solution.scores["prm"]) == 2


def test_the_table_of_architectures_is_the_tested_one():
    from tests.families.__main__ import table, written

    assert "`llama`" in table()
    assert "| computed once | token classifier |" in README
    assert written(README) == README, "run: python -m tests.families"


def test_ci_runs_what_the_readme_says():
    assert "make check test test-vllm" in (ROOT / ".ci" / "run").read_text()
