"""``sampling STAGE --dry-run``: what is left, tokens and time of a probe; nothing is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

from sampling.__main__ import main
from sampling.runtime.dry_run import Forecast
from sampling.runtime.problem_shard import shard_number
from stepverify.jsonl import read_records, write_records
from stepverify.records import Problem, Solution

SAMPLING = ["--sampling.max_tokens", "6"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_records(Path("problems.jsonl"), [
        Problem(id=f"p/{i}", problem=f"a = {i} + 1 ; a ?", answer=str(i + 1)) for i in range(6)
    ])  # fmt: skip


def engine(model):
    return json.dumps({"class_path": "TransformersEngine", "init_args": {"model": str(model)}})


def generate(model, output="samples", *more):
    problems = json.dumps({"class_path": "Problems", "init_args": {"path": "problems.jsonl"}})
    main(["generate", "--engine", engine(model), "--problems", problems, "--output", output, "--num_samples", "3",
          *SAMPLING, *more])  # fmt: skip


def state():
    return {str(f): f.read_bytes() for f in sorted(Path().rglob("*")) if f.is_file()}


def dry(run, capsys):
    """What it prints; nothing may be written."""
    before = state()
    run()
    assert state() == before
    return capsys.readouterr().out.splitlines()


def test_generate(tiny_model_dir, capsys):
    """18 samples, of which the first 7 are there: 11 left, of 6 tokens at most; a torn line does not count."""
    said = dry(lambda: generate(tiny_model_dir, "samples", "--dry-run"), capsys)
    assert said[0] == "samples: generate: 6 problems, 18 solutions: 0 done, 18 left"
    assert not Path("samples").exists()
    generate(tiny_model_dir)
    (shard,) = Path("samples").glob("part-*.jsonl")
    lines = shard.read_text().splitlines(keepends=True)
    shard.write_text("".join(lines[:7]) + lines[7][:9])
    said = dry(lambda: (capsys.readouterr(), generate(tiny_model_dir, "samples", "--dry-run")), capsys)
    assert said[0] == "samples: generate: 6 problems, 18 solutions: 7 done, 11 left"
    tokens = re.fullmatch(r"  tokens: about (\d+) to sample, as a probe of (\d+)", said[1])
    assert 11 <= int(tokens[1]) <= 66
    assert int(tokens[2]) == 9, "one of the four problems loads the model, three samples of the others are timed"
    assert re.fullmatch(r"  time: about [\d.]+ \w+, at the speed of a probe of 9 solutions; .*", said[2])
    assert said[3] == "  nothing was written"


def test_all_is_done(tiny_model_dir, capsys):
    """No model is needed to say so."""
    generate(tiny_model_dir)
    said = dry(lambda: (capsys.readouterr(), generate(tiny_model_dir, "samples", "--dry-run")), capsys)
    assert said == ["samples: generate: 6 problems, 18 solutions: 18 done, 0 left", "  nothing was written"]


def test_label_by_rollouts_of_samples(tiny_model_dir, capsys):
    """``reuse_samples`` asks how the solutions were sampled: the probe's input says so too."""
    generate(tiny_model_dir)
    rollouts = {
        "class_path": "Rollouts",
        "init_args": {
            "engine": json.loads(engine(tiny_model_dir)), "sampling": {"max_tokens": 6}, "reuse_samples": True,
        },
    }  # fmt: skip
    words = ["label", "--input", "samples", "--output", "labels", "--steps", json.dumps(rollouts), "--dry-run"]
    said = dry(lambda: (capsys.readouterr(), main(words)), capsys)
    assert said[0] == "labels: label: 6 problems, 18 solutions: 0 done, 18 left"
    assert said[-2].endswith("of a probe of 6 solutions; with more in flight it may be less")


def test_score_of_a_shard(process, tmp_path, capsys):
    """Two of five solutions have tokens, 7 each; a token counts as four characters where they are not known."""
    write_records(Path("in.jsonl"), [
        Solution(id=f"p/{i}#0", problem_id=f"p/{i}", problem="a = 1 ; a ?", steps=["a = 1", "#### 1"],
                 token_ids=[1] * 7 if i < 2 else None)
        for i in range(5)
    ])  # fmt: skip
    words = ["score", "--input", "in.jsonl", "--output", "scores", "--verifiers", f"{{prm: {process}}}", "--dry-run"]
    said = dry(lambda: main(words), capsys)
    assert said[0] == "scores: score: 5 problems, 5 solutions: 0 done, 5 left"
    characters = 2 * 4 * 7 + 3 * len("a = 1\n#### 1")
    assert said[1].startswith(f"  tokens: about {characters // 4} of solutions to read")
    own = sum(shard_number(f"p/{i}", 2) == 1 for i in range(5))
    assert f"{own} solutions: 0 done, {own} left" in dry(lambda: main([*words, "--shard", "1/2"]), capsys)[0]


def test_search(tiny_model_dir, process, capsys):
    problems = json.dumps({"class_path": "Problems", "init_args": {"path": "problems.jsonl"}})
    strategy = json.dumps({"class_path": "BestOfN", "init_args": {"num_samples": 2}})
    words = ["search", "--engine", engine(tiny_model_dir), "--problems", problems, "--verifier", str(process),
             "--strategy", strategy, "--output", "found", *SAMPLING]  # fmt: skip
    said = dry(lambda: main([*words, "--dry-run"]), capsys)
    assert said[0] == "found: search: 6 problems: 0 done, 6 left"
    assert re.match(r"  tokens: about \d+ to sample, as a probe of 1$", said[1])
    main(words)
    capsys.readouterr()
    assert len([*read_records(Path("found"), Solution)]) == 12
    assert dry(lambda: main([*words, "--dry-run"]), capsys)[0] == "found: search: 6 problems: 6 done, 0 left"


def test_other_stages_are_refused(capsys):
    Path("scores").mkdir()
    with pytest.raises(SystemExit) as stopped:
        main(["rank", "--input", "scores", "--output", "r", "--dry-run"])
    assert stopped.value.code == 2
    said = "sampling rank: --dry-run: is for generate, label, score, search; rank takes seconds\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(7.2, "7 s"), (119, "119 s"), (150, "2.5 min"), (9000, "2.5 h"), (216000, "2.5 days")]
)  # fmt: skip
def test_duration(seconds, said):
    text = Forecast(2, 4, 1, "solutions", seconds=seconds, probed=2).describe(Path("out"), "score")
    assert text.splitlines()[0] == "out: score: 2 problems, 4 solutions: 1 done, 3 left"
    assert f"time: about {said}, at the speed of a probe of 2 solutions" in text
