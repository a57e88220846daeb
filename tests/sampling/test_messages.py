"""Natural mistakes with ``sampling``: one line each, word for word, exit code 2, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sampling.__main__ import main
from stepverify.jsonl import write_records
from stepverify.records import Solution

ENGINE = "{class_path: TransformersEngine, init_args: {model: m}}"
YAML = """\
engine:
  class_path: {engine}
  init_args:
    {model}: m
problems:
  class_path: Synthetic
  {init_args}:
    split: {split}
    num_problems: 2
{samples}: {number}
sampling:
  {temperature}: 0.5
output: out
"""
PLAIN = {
    "engine": "VllmEngine", "model": "model", "init_args": "init_args", "split": "test", "samples": "num_samples",
    "number": "2", "temperature": "temperature",
}  # fmt: skip


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Returns what a command line prints after ``sampling STAGE: ``; it must end with code 2 and write nothing."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        before = {*Path().rglob("*")}
        with pytest.raises(SystemExit) as stopped:
            main(words)
        error = capsys.readouterr().err
        assert stopped.value.code == 2
        assert {*Path().rglob("*")} == before
        assert error.count("\n") == 1
        return error.removeprefix(f"sampling {words[0]}: ").rstrip("\n")

    return run


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"samples": "num_sample"}, "10: num_sample: 2: no such key; did you mean num_samples?"),
        ({"number": "many"}, "10: num_samples: 'many': expected an integer"),
        ({"number": "2.5"}, "10: num_samples: 2.5: expected an integer"),
        ({"temperature": "temprature"}, "12: sampling.temprature: 0.5: no such key of SamplingOptions; did you mean temperature?"),
        ({"engine": "VLLMEngine"}, "2: engine.class_path: no class 'VLLMEngine'; did you mean VllmEngine?"),
        ({"model": "modle"}, "4: engine.init_args.modle: 'm': no such key of VllmEngine; did you mean model?"),
        ({"split": "tset"}, "8: problems.init_args.split: 'tset': did you mean test?"),
        ({"split": "dev"}, "8: problems.init_args.split: 'dev': expected demonstrations, train, validation or test"),
        ({"init_args": "init_arg"}, "7: problems.init_arg: {'split': 'test', 'num_problems': 2}: no such key; did you mean init_args?"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_yaml_is_named_with_its_line(changed, message, said, tmp_path):
    (tmp_path / "my.yaml").write_text(YAML.format(**PLAIN | changed))
    assert said("generate", "--config", "my.yaml") == f"my.yaml:{message}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_sampls", "3"], "--num_sampls: no such option; did you mean --num_samples?"),
        (["--num-samples", "3"], "--num-samples: no such option; did you mean --num_samples?"),
        (["-output", "x"], "-output: no such option; did you mean --output?"),
        (["--num_samples", "x"], "--num_samples: 'x': expected an integer"),
        (["--output"], "--output: expected a value after it"),
        (["--sampling.max_token", "3"], "--sampling.max_token: no such option; did you mean --sampling.max_tokens?"),
        (["--engine", "VllmEngine"], "--engine: VllmEngine needs init_args: model; give --engine.init_args.model MODEL"),
        (["--engine", "VllmEngin"], "--engine: no class 'VllmEngin'; did you mean VllmEngine?"),
        (["--engine", ENGINE, "--engine.init_args.modle", "x"], "--engine.init_args.modle: no such key of TransformersEngine; did you mean model?"),
        (["--problems", "q.jsonl"], "--problems: 'q.jsonl': expected a reader, as {class_path: Problems, init_args: {path: q.jsonl}}, or Solutions"),
        (["my.yaml"], "my.yaml: --config is missing: sampling generate --config my.yaml"),
        (["--engine", ENGINE], "problems, output: missing; give --problems PROBLEMS --output OUTPUT, or a file with these keys: --config FILE.yaml"),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_is_one_line(words, message, said):
    assert said("generate", *words) == message


def test_other_programs_words(said, tmp_path):
    there = f"(relative to the working directory: {tmp_path / 'no.yaml'})"
    assert said("rank", "--config", "no.yaml") == f"--config: no.yaml: no such file {there}"
    assert said("raport", "--output", "x") == "sampling: raport: no such stage; did you mean report?"
    assert said("pipeline", "x", "--onyl", "3") == "--onyl: no such option; did you mean --only?"
    assert (
        said("pipeline") == "the following arguments are required: pipeline; sampling pipeline --help lists all options"
    )
    assert (
        said("rank", "--aggregation", "min")
        == "--aggregation: 'min': expected names and values, as {name: value} or null"
    )


def test_a_run_folder_is_not_an_export(said, tmp_path):
    (tmp_path / "prm" / "export").mkdir(parents=True)
    (tmp_path / "prm" / "export" / "config.json").write_text("{}")
    write_records(tmp_path / "s.jsonl", [Solution(id="p#0", problem_id="p", problem="?", steps=["x"])])
    given = "prm: expected an option before it; a verifier is given as --verifiers '{prm: prm/export}'"
    assert said("score", "prm") == given
    words = ["--input", "s.jsonl", "--output", "out", "--verifiers"]
    asked = "prm: is the run of `stepverify fit`, no export; did you mean prm/export?"
    assert said("score", *words, "{prm: prm}") == asked
    path = "--verifiers: 'prm/export': expected names and values, as {name: value}"
    assert said("score", *words, "prm/export") == path
    run = "prm: holds no .jsonl or .jsonl.gz file; it is a run of `stepverify fit`, whose model is prm/export"
    assert said("rank", "--input", "prm", "--output", "out") == run


def made(folder: Path, stage: str, source: str) -> None:
    folder.mkdir()
    manifest = {
        "stage": stage,
        "config": {},
        "inputs": {"input": {"path": source, "sha256": ""}},
        "finished": True,
        "summary": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "part-00000.jsonl").write_text("{}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rank", "--input", "rankings"], "rankings: holds rankings of `sampling rank`; expected solutions: `sampling generate`, `label`, `score` and `search` write them; did you mean its input scores?"),
        (["label", "--input", "sheets"], "sheets: holds rating sheets of `sampling select`; expected solutions: `sampling generate`, `label`, `score` and `search` write them; did you mean its input scores?"),
        (["report", "--input", "scores"], "scores: holds solutions of `sampling score`; expected rankings: `sampling rank` writes them"),
        (["report", "--scores", "rankings"], "rankings: holds rankings of `sampling rank`; expected solutions: `sampling generate`, `label`, `score` and `search` write them; did you mean its input scores?"),
        (["report", "--searches", "{a: scores}"], "searches.a: scores: not the output of `sampling search`, but of `sampling score`"),
    ],
)  # fmt: skip
def test_the_output_of_another_stage_is_named_with_the_stage_that_is_needed(words, message, said, tmp_path):
    made(tmp_path / "scores", "score", "labels")
    made(tmp_path / "rankings", "rank", "scores")
    made(tmp_path / "sheets", "select", "scores")
    assert said(*words, "--output", "out") == message


def test_a_relative_path_is_named_with_where_it_was_looked_for(said, tmp_path):
    there = f"(relative to the working directory: {tmp_path}/runs/scores)"
    assert said("rank", "--input", "runs/scores", "--output", "out") == f"runs/scores: no such file or folder {there}"
    assert said("rank", "--input", "/runs/no", "--output", "out") == "/runs/no: no such file or folder"


def test_a_gpu_that_is_not_there():
    torch = pytest.importorskip("torch")
    from stepverify.device import choose_device
    from stepverify.records import InputError

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError) as refused:
        choose_device("cuda")
    assert str(refused.value) == "device: cuda: PyTorch finds no GPU on this machine; use cpu, or leave it out"
