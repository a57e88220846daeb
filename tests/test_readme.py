"""What README.md names is there: make targets, stages, commands, paths, configuration keys."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


READMES = [
    ROOT / "README.md",
    *(path for top in ("stepverify", "sampling", "lit_configs", "tests") for path in (ROOT / top).rglob("README.md")),
]


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_exist(path: Path):
    """Links of every README, and paths that it names."""
    text = path.read_text()
    for link in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
        assert (path.parent / link).exists(), link
    for name in re.findall(r"(?<![\w./-])(?:lit_configs|stepverify|sampling|tests|\.ci)/[\w./]*\w", text):
        assert (ROOT / name).exists() or (path.parent / name).exists(), name


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


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_records_in_the_readme_are_records():
    """They read back as a problem and as a solution of it, with a label for each step."""
    from stepverify.jsonl import parse_record
    from stepverify.records import Problem, Solution

    first, second = map(json.loads, blocks("json"))
    problem, solution = parse_record(Problem, first), parse_record(Solution, second)
    assert (solution.problem_id, solution.problem, solution.answer) == (problem.id, problem.problem, problem.answer)
    assert len(solution.steps) == len(solution.step_labels) == 2


def test_own_data_to_a_report_by_the_readme(tmp_path: Path, tiny_model_dir: Path, monkeypatch, capsys):
    """Every command of the section, with its files; for hub models and vLLM stand a tiny model and transformers."""
    pytest.importorskip("torch")
    from sampling.__main__ import main as sampling
    from stepverify.cli import main as stepverify
    from stepverify.jsonl import write_records
    from stepverify.readers import Synthetic

    monkeypatch.chdir(tmp_path)
    write_records(tmp_path / "my_problems.jsonl", Synthetic("train", 60).problems())
    tiny = {"Qwen/Qwen2.5-1.5B": str(tiny_model_dir), "VllmEngine": "TransformersEngine", "<|fim_pad|>": "<step>"}
    small = {
        "max_tokens: 320": "max_tokens: 8",
        "num_samples: 16": "num_samples: 2",
        "num_rollouts: 8": "num_rollouts: 2",
    }
    for block, name in zip(blocks("yaml"), ("generate.yaml", "label.yaml", "my_prm.yaml"), strict=True):
        text = reduce(lambda text, change: text.replace(*change), (tiny | small).items(), block)
        (tmp_path / name).write_text(text)
    section = README[README.index("## Train on your own data") : README.index("## Use it from Python")]
    commands = [
        shlex.split(line, comments=True) for line in re.findall(r"^(?:sampling|stepverify) .*$", section, re.MULTILINE)
    ]
    assert [words[:2] for words in commands] == [
        ["sampling", "generate"], ["sampling", "label"], ["stepverify", "fit"], ["stepverify", "fit"],
        ["sampling", "score"], ["sampling", "rank"], ["sampling", "report"],
    ]  # fmt: skip
    quick = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    for program, *words in commands:
        given = [word.replace("runs/my/test_labels", "runs/my/labels") for word in words]
        if program == "stepverify":
            stepverify([*given, *quick])
        else:
            sampling(given)
    assert "already finished" in capsys.readouterr().out, "the second fit goes on with a finished run"
    assert (tmp_path / "runs" / "my" / "report" / "report.html").is_file()


def test_the_table_of_architectures_is_the_tested_one():
    from tests.families.__main__ import table, written

    assert "`llama`" in table()
    text = (ROOT / "stepverify" / "README.md").read_text()
    assert "| computed once | token classifier |" in text
    assert written(text) == text, "run: python -m tests.families"


def test_ci_runs_what_the_readme_says():
    assert "make check test test-ray test-vllm" in (ROOT / ".ci" / "run").read_text()
    assert len(README.splitlines()) <= 250
