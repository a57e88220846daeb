"""``sampling run``: from questions to a report in one command, with a tiny model; and the path from TRL's rows."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("torch")

from sampling import pipeline
from sampling.__main__ import main as sampling
from sampling.questions import choose_engine, vote
from stepverify.cli import main as stepverify
from stepverify.jsonl import read_records, write_records
from stepverify.monitoring import SolutionText
from stepverify.records import InputError, Solution
from stepverify.starting import init as starting
from tests.helpers import first_rows

SMALL = ["--num_samples", "2", "--max_tokens", "6", "--engine", "transformers"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of its own; stages run in this process."""

    def in_process(command):
        try:
            {"sampling": sampling, "stepverify": stepverify}[command[0]](command[1:])
        except SystemExit as stopped:
            return int(stopped.code or 0)
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "run_process", in_process)


def run(*args):
    with pytest.raises(SystemExit) as stopped:
        sampling(["run", *args])
    return stopped.value.code


@pytest.mark.slow
def test_from_questions_to_a_report(tiny_model_dir, process, capsys):
    """Four of 24 problems, two samples each; the same command again skips all that has finished."""
    problems = first_rows.write(Path("questions.jsonl"), "problems")
    words = ["--problems", problems, "--model", str(tiny_model_dir), "--output", "out", "--limit", "4", *SMALL]
    assert run(*words, "--verifier", str(process)) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "questions.jsonl: 4 problems, problems with question as problem, target as answer (reader Problems)" in said
    assert "  engine: TransformersEngine: as asked" in said
    summary = json.loads(Path("out/report/summary.json").read_text())
    assert {"pass@1", "majority", "verifier/best_of_n"} <= summary["accuracy"].keys()
    assert len([*read_records(Path("out/samples"), Solution)]) == 8
    files = {f: f.stat().st_mtime_ns for f in Path("out").rglob("*.jsonl")}
    assert run(*words, "--verifier", str(process)) == 0
    assert capsys.readouterr().out.count("already") == 4
    assert {f: f.stat().st_mtime_ns for f in Path("out").rglob("*.jsonl")} == files
    stages = re.findall(r"^  \d\d_\w+: sampling (\w+)$", Path("out/pipeline/pipeline.yaml").read_text(), re.MULTILINE)
    assert stages == ["generate", "label", "score", "rank", "report"]


def test_questions_without_answers(tiny_model_dir, capsys):
    """One of two questions has an answer: that one alone is in the report, the other one in answers.jsonl."""
    rows = [{"question": "1 + 1 ?", "gold": 2}, {"question": "1 + 2 ?", "gold": None}]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("--problems", "q.jsonl", "--model", str(tiny_model_dir), "--output", "out", *SMALL) == 0
    said = capsys.readouterr().out
    assert "  1 without a reference answer: samples and majority vote, and no accuracy (out/answers.jsonl)" in said
    assert len([*read_records(Path("out/rankings"), pipeline_ranking())]) == 1
    (answer,) = map(json.loads, Path("out/answers.jsonl").read_text().splitlines())
    assert (answer["problem"], answer["samples"]) == ("1 + 2 ?", 2)
    assert not [*Path("out").glob("scores*")], "no verifier was given"


def pipeline_ranking():
    from stepverify.records import Ranking

    return Ranking


def test_majority_vote(capsys):
    """Of ``1/2, 0.5, 3`` the class of 1/2 has two votes; the fourth was cut off, and the second problem states nothing."""
    texts = [("a", 0, "#### 3", "stop"), ("a", 1, "#### 1/2", "stop"), ("a", 2, "#### 0.5", "stop"),
             ("a", 3, "#### 3", "length"), ("b", 0, "so", "stop")]  # fmt: skip
    write_records(Path("samples.jsonl"), [
        Solution(id=f"{p}#{i}", problem_id=p, problem=p, steps=[text], finish=finish) for p, i, text, finish in texts
    ])  # fmt: skip
    vote(Path("samples.jsonl"), Path("answers.jsonl"))
    assert [*map(json.loads, Path("answers.jsonl").read_text().splitlines())] == [
        {"id": "a", "problem": "a", "answer": "1/2", "votes": 2, "samples": 4},
        {"id": "b", "problem": "b", "answer": None, "votes": 0, "samples": 1},
    ]
    assert capsys.readouterr().out == (
        "answers.jsonl: 2 problems answered by majority vote; 1 have no sample that states an answer\n"
    )


def test_engine_is_vllm_on_a_gpu_where_it_is_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    vllm = {"class_path": "VllmEngine", "init_args": {"model": "m"}}
    monkeypatch.setattr("sampling.questions._on_gpu", lambda: True)
    assert choose_engine("auto", "m") == (vllm, "vLLM is installed")
    monkeypatch.setattr("sampling.questions._on_gpu", lambda: False)
    for products, dtype in ((False, "float32"), (True, "auto")):
        monkeypatch.setattr("stepverify.device.multiplies_in_bfloat16", lambda products=products: products)
        here = {"class_path": "TransformersEngine", "init_args": {"model": "m", "dtype": dtype}}
        assert choose_engine("auto", "m") == (here, "vLLM starts slowly on a CPU; --engine vllm")
    assert choose_engine("vllm", "m") == (vllm, "as asked")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose_engine("auto", "m") == (here, "there is no GPU")
    with pytest.raises(InputError, match="--engine vllm: it is not installed"):
        choose_engine("vllm", "m")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--problems", "none.jsonl"], "sampling run: none.jsonl: no such file\n"),
        (["--num_samples", "0"], "sampling run: --num_samples: expected 1 or more, got 0\n"),
        (["--verifier", "."], "sampling run: --verifier .: not an exported verifier (no stepverify.json)\n"),
        (["--columns", "question"], "sampling run: --columns question: expected COLUMN=FIELD, such as question=problem\n"),
    ],
)  # fmt: skip
def test_what_is_refused(words, said, tiny_model_dir, capsys):
    problems = first_rows.write(Path("questions.jsonl"), "problems")
    assert run("--problems", problems, "--model", str(tiny_model_dir), *words) == 2
    assert capsys.readouterr().err == said
    assert not Path("runs").exists()


def test_from_trl_rows_to_a_report_in_five_commands(one_layer_dir, monkeypatch, capsys):
    """init prints four commands; run as printed they train, score the held-out problems and report on their steps."""
    monkeypatch.setattr(starting, "look", lambda: ("CPU", 2**34, False))
    monkeypatch.setattr(SolutionText.__init__, "__defaults__", (1, 4))
    first_rows.write(Path("rows.jsonl"), "TRL")
    stepverify(["init", "prm", "--model", str(one_layer_dir), "--data", "rows.jsonl"])
    printed = capsys.readouterr().out.split("next:\n")[1].strip().splitlines()
    assert [line.split()[:2] for line in printed] == [
        ["stepverify", "fit"], ["sampling", "convert"], ["sampling", "score"], ["sampling", "report"],
    ]  # fmt: skip
    for program, *words in map(shlex.split, printed):
        {"sampling": sampling, "stepverify": stepverify}[program](words)
    summary = json.loads(Path("runs/my_prm/report/summary.json").read_text())
    assert summary["steps"].keys() == {"prm"}
    held_out = {s.problem_id for s in read_records(Path("runs/my_prm/held_out.jsonl"), Solution)}
    trained = Path("runs/my_prm/scores/manifest.json").read_text()
    assert json.loads(trained)["summary"]["trained_on"]["prm"]["problems"] == 0, "none of them was trained on"
    assert len(held_out) == 3
