"""``python -m sampling``: exit codes, and one line for every kind of bad input."""

import json
import subprocess
import sys

import pytest

from sampling.__main__ import STAGES, main
from stepverify.jsonl import write_records
from stepverify.records import Solution

SPLIT_OF_NONE = {"split": "test", "num_problems": 0}


def stopped(*args):
    with pytest.raises(SystemExit) as stop:
        main(args)
    return stop.value.code


def generate_yaml(tmp_path, **changed):
    values = {
        "engine": {"class_path": "sampling.engines.TransformersEngine", "init_args": {"model": "./nowhere"}},
        "problems": {
            "class_path": "stepverify.readers.Synthetic",
            "init_args": {"split": "test", "num_problems": 2, "worked": False},
        },
        "output": str(tmp_path / "out"),
    } | changed  # fmt: skip
    path = tmp_path / "stage.yaml"
    path.write_text(json.dumps(values))  # JSON is YAML
    return str(path)


def test_the_program_lists_its_stages():
    done = subprocess.run([sys.executable, "-m", "sampling", "--help"], capture_output=True, text=True, check=True)
    listed = done.stdout.partition("stages:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in listed.splitlines()] == list(STAGES)
    assert "sampling pipeline FOLDER" in done.stdout
    first = ["generate", "label", "score", "search", "policy", "calibrate", "select", "rank", "report"]
    assert list(STAGES) == [*first, "grade", "compare", "convert"]
    assert done.stderr == ""


def test_help_loads_nothing_heavy():
    code = """
import sys
from sampling.__main__ import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
loaded = {"torch", "transformers", "vllm", "lightning", "jsonargparse"} & set(sys.modules)
sys.exit(", ".join(loaded) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_engines_have_short_names(tmp_path, capsys):
    """``class_path: VllmEngine``; the help lists all engines; neither loads vLLM or torch."""
    code = """
import sys
from sampling.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code
sys.exit(", ".join({"torch", "transformers", "vllm", "aiohttp"} & set(sys.modules)) or 0)
"""
    config = generate_yaml(tmp_path, engine={"class_path": "VllmEngine", "init_args": {"model": "m"}})
    for arguments, expected in (
        (["--config", config, "--print_config"], ["class_path: sampling.engines.VllmEngine"]),
        (["--help"], ["CalculatorEngine", "ServerEngine", "TransformersEngine", "VllmEngine"]),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, "generate", *arguments], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert not [name for name in expected if name not in done.stdout]


def test_no_stage_and_unknown_stages(capsys):
    assert stopped() == 2
    assert stopped("-h") == 0
    capsys.readouterr()
    assert stopped("generte", "--config", "x.yaml") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "sampling: generte: no such stage; did you mean generate?\n"


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_describes_its_keys(stage, capsys):
    assert stopped(stage, "--help") == 0
    text = capsys.readouterr().out
    assert f"sampling {stage}" in text
    assert "--config" in text
    assert "--output" in text


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"num_samples": "many"}, "num_samples"),
        ({"num_sample": 3}, "num_sample"),
        ({"sampling": {"temprature": 1}}, "temprature"),
        ({"sampling": {"max_tokens": 1.5}}, "max_tokens"),
        ({"engine": {"class_path": "sampling.engines.NoEngine"}}, "NoEngine"),
        ({"engine": {"class_path": "sampling.engines.TransformersEngine", "init_args": {"batch": 1}}}, "batch"),
        ({"problems": {"class_path": "stepverify.readers.Synthetic", "init_args": {"split": "dev"}}}, "split"),
    ],
)
def test_bad_values_in_a_yaml_exit_with_2_and_name_the_key(changed, named, tmp_path, capsys):
    assert stopped("generate", "--config", generate_yaml(tmp_path, **changed)) == 2
    printed = capsys.readouterr()
    assert named in printed.err
    assert "Traceback" not in printed.err
    assert not (tmp_path / "out").exists()


def test_variables_are_filled_and_unknown_ones_refused(tmp_path, capsys):
    """``--set`` before what vars.yaml says; the printed configuration holds values."""
    (tmp_path / "vars.yaml").write_text("count: 3\n")
    config = generate_yaml(tmp_path, num_samples="${count}")
    assert stopped("generate", "--config", config, "--print_config") == 0
    assert "num_samples: 3\n" in capsys.readouterr().out
    assert stopped("generate", "--config", config, "--set", "count=4", "--print_config") == 0
    assert "num_samples: 4\n" in capsys.readouterr().out
    assert stopped("generate", "--config", config, "--set", "cuont=4") == 2
    assert capsys.readouterr().err == "sampling generate: --set cuont: no such variable; there are: count\n"
    assert stopped("generate", "--config", generate_yaml(tmp_path, seed="${sed}")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sampling generate: {config}:1: seed: ${{sed}} is not defined: ")


def test_a_yaml_that_is_missing_or_broken(tmp_path, capsys):
    assert stopped("rank", "--config", str(tmp_path / "none.yaml")) == 2
    (tmp_path / "broken.yaml").write_text("input: [1\n")
    assert stopped("rank", "--config", str(tmp_path / "broken.yaml")) == 2
    assert "Traceback" not in capsys.readouterr().err


def unfinished(tmp_path):
    folder = tmp_path / "unfinished"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"finished": false}')
    return str(folder)


def bad_line(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": "p#0", "problem_id": "p", "problem": "?", "steps": "one"}\n')
    return str(path)


def ungraded(tmp_path):
    path = tmp_path / "ungraded.jsonl"
    write_records(path, [Solution(id="p#0", problem_id="p", problem="?", steps=["x"])])
    return str(path)


def foreign(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "letter.txt").write_text("not yours")
    return str(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda t: ["generate", "--config", generate_yaml(t)], "./nowhere: no such model folder"),
        (lambda t: ["generate", "--config", generate_yaml(t, num_samples=0)], "num_samples: expected >= 1, got 0"),
        (lambda t: ["generate", "--config", generate_yaml(t, output=foreign(t))], "not empty, and not the output"),
        (lambda t: ["label", "--input", str(t / "none"), "--output", str(t / "o")], "none: no such file or folder"),
        (lambda t: ["label", "--input", unfinished(t), "--output", str(t / "o")], "this stage has not finished"),
        (lambda t: ["label", "--input", bad_line(t), "--output", str(t / "o")], 'bad.jsonl:1: key \'steps\': expected'),
        (lambda t: ["label", "--input", ungraded(t), "--output", str(t / "o")], "p#0: its problem has no reference"),
        (lambda t: ["score", "--input", ungraded(t), "--output", str(t / "o"), "--verifiers", "{}"], "verifiers: exp"),
        (
            lambda t: ["score", "--input", ungraded(t), "--output", str(t / "o"), "--verifiers", f"{{a: {t}}}"],
            "not an exported verifier",
        ),
        (lambda t: ["select", "--input", ungraded(t), "--output", str(t / "o")], "per_problem, total: expected one of"),
        (
            lambda t: ["select", "--input", ungraded(t), "--output", str(t / "o"), "--total", "1"],
            "ungraded.jsonl:1: solution p#0 is not graded",
        ),
        (lambda t: ["rank", "--input", str(t / "none"), "--output", str(t / "o")], "none: no such file or folder"),
        (lambda t: ["report", "--input", str(t / "none"), "--output", str(t / "o")], "none: no such file or folder"),
    ],
)  # fmt: skip
def test_every_input_error_is_one_line(arguments, message, tmp_path, capsys):
    args = arguments(tmp_path)
    assert stopped(*args) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith(f"sampling {args[0]}: ")
    assert message in line
    assert printed.out == ""


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sampling": {"temperature": -1}}, "sampling.temperature: expected >= 0, got -1"),
        ({"template": {"prompt": "no place"}}, "template.prompt: expected exactly one {problem}"),
        (
            {"few_shot": {"class_path": "stepverify.readers.Synthetic", "init_args": SPLIT_OF_NONE}},
            "num_problems: expected >= 1, got 0",
        ),
    ],
)  # fmt: skip
def test_values_that_are_refused_when_objects_are_made(changed, message, tmp_path, capsys):
    assert stopped("generate", "--config", generate_yaml(tmp_path, **changed)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
