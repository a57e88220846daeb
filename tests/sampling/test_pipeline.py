"""``sampling pipeline``: order, choice, resume, failures and signals, with stages that need no model."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sampling import pipeline
from sampling.__main__ import main as sampling
from stepverify.records import InputError

VARS = "runs: out\nsize: 3\nextra: false\n"
STAGES = """
stages:
  01_problems: sampling convert
  02_again: { run: sampling convert, set: { size: 2 } }
  03_extra: { run: sampling convert, config: 02_again.yaml, when: extra }
  04_fit: { run: stepverify fit, config: [01_problems.yaml, overlays, 02_again.yaml] }
"""
CONVERT = """
input: {{ class_path: Synthetic, init_args: {{ split: test, num_problems: "${{size}}" }} }}
output: ${{runs}}/{0}.jsonl
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "vars.yaml").write_text(VARS)
    (folder / "pipeline.yaml").write_text(STAGES)
    for name in ("01_problems", "02_again"):
        (folder / f"{name}.yaml").write_text(CONVERT.format(name))
    (tmp_path / "over.yaml").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return folder


def lines(*args: str) -> list[str]:
    return [shlex.join(command) for _, command in pipeline.plan(["recipe", *args])[0]]


def test_plain_command_lines(recipe):
    assert lines() == [
        "sampling convert --config recipe/01_problems.yaml",
        "sampling convert --config recipe/02_again.yaml --set size=2",
        "stepverify fit --config recipe/01_problems.yaml --config recipe/02_again.yaml --ckpt_path last",
    ]
    assert lines("--limit", "5", "--to", "1") == ["sampling convert --config recipe/01_problems.yaml --limit 5"]
    assert "--limit" not in lines("--limit", "5", "--only", "4")[0]
    assert lines("--overlay", "over.yaml", "--set", "runs=a b", "--from", "4") == [
        "stepverify fit --config recipe/01_problems.yaml --config over.yaml --config recipe/02_again.yaml "
        "--set 'runs=a b' --ckpt_path last",
    ]

    (line,) = lines("--overlay", "{trainer: {max_epochs: 1}}", "--from", "4")
    assert "--config '{trainer: {max_epochs: 1}}' --config recipe/02_again.yaml" in line


def test_a_shard_goes_to_every_stage_that_divides_problems(recipe):
    for name, stage in (("05_samples", "generate"), ("06_labels", "label")):
        (recipe / f"{name}.yaml").write_text("{}")
        (recipe / "pipeline.yaml").write_text((recipe / "pipeline.yaml").read_text() + f"  {name}: sampling {stage}\n")
    assert lines("--from", "5", "--shard", "3/16", "--set", "runs=jobs/3") == [
        "sampling generate --config recipe/05_samples.yaml --set runs=jobs/3 --shard 3/16",
        "sampling label --config recipe/06_labels.yaml --set runs=jobs/3 --shard 3/16",
    ]
    with pytest.raises(InputError, match=r"^--shard 3/16: 04_fit \(stepverify fit\) works on all problems; choose"):
        lines("--from", "4", "--shard", "3/16")
    with pytest.raises(InputError, match=r"^shard: '17/16': expected i/n"):
        lines("--from", "5", "--shard", "17/16")


@pytest.mark.parametrize(
    ("args", "numbers"),
    [
        ([], "124"), (["--set", "extra=true"], "1234"), (["--to", "02_again"], "12"), (["--from", "again"], "24"),
        (["--only", "3"], "3"), (["--only", "extra", "--only", "1"], "13"), (["--from", "2", "--to", "2"], "2"),
    ],
)  # fmt: skip
def test_choice_of_stages(recipe, args, numbers):
    assert "".join(name[1] for name, _ in pipeline.plan(["recipe", *args])[0]) == numbers


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere: no such file"),
        (["recipe", "--from", "9"], "9: no stage has that name or number; there are: 01_problems, 02_again, "),
        (["recipe", "--from", "2", "--to", "1"], "--from 2: comes after --to 1"),
        (["recipe", "--set", "sise=3"], "--set sise: no such variable; there are: extra, runs, size"),
        (["recipe", "--overlay", "none.yaml"], "--overlay none.yaml: no such file"),
    ],
)
def test_mistakes_end_with_one_line_before_anything_runs(recipe, args, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        sampling(["pipeline", *args])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"sampling pipeline: {message}")
    assert len(printed.err.splitlines()) == 1
    assert not printed.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [a]", "expected the key stages"),
        ("stages: {a: sampling}", "stages.a: expected `sampling STAGE` or `stepverify fit`, got 'sampling'"),
        ("stages: {a: stepverify test}", "stages.a: expected `sampling STAGE`"),
        (
            "stages: {a: {run: sampling rank, wenn: x}}",
            "stages.a: expected a command, or the keys config, run, set, when",
        ),
        ("stages: {a: sampling rank}", "stages.a: recipe/a.yaml: no such file"),
        ("stages: {01_problems: {run: sampling rank, when: y}}", "stages.01_problems.when: y: no such variable in"),
        ("set: [x]\nstages: {}", "set: expected names and values, got ['x']"),
    ],
)
def test_a_pipeline_is_checked(recipe, text, message):
    (recipe / "pipeline.yaml").write_text(text)
    with pytest.raises(InputError) as refused:
        pipeline.plan(["recipe"])
    assert message in str(refused.value)
    assert str(refused.value).startswith("recipe/pipeline.yaml: ")


def run(*args: str, **options) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "sampling", "pipeline", "recipe", *args]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, **options)


def test_stages_run_as_processes_and_the_first_that_fails_ends_it(recipe):
    """The second one refuses an output that it did not write; with another size the first one refuses its own."""
    Path("out/02_again.jsonl").mkdir(parents=True)
    Path("out/02_again.jsonl/letter").touch()
    done = run("--to", "2")
    assert done.returncode == 2
    assert len(Path("out/01_problems.jsonl").read_text().splitlines()) == 3
    assert done.stderr.endswith(
        "sampling pipeline: 02_again ended with exit code 2; go on with:\n  sampling pipeline recipe --to 2\n"
    )


def test_the_parent_loads_no_model_library(recipe):
    code = """
import sys
from sampling.__main__ import main
try:
    main(["pipeline", "recipe", "--dry-run"])
except SystemExit as stop:
    assert not stop.code
sys.exit(", ".join({"torch", "transformers", "vllm", "lightning", "numpy"} & set(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("sampling convert --config recipe/01_problems.yaml\n")


SLOW = """
import os, signal, time
from stepverify.readers import Reader
class Slow(Reader):
    def problems(self):
        def stop(number, frame):
            open(f"stopped_by_{number}", "a").write("x")
            raise SystemExit(7)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
        open("started", "w").close()
        time.sleep(60)
        yield
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_reaches_the_running_stage_once(recipe, number):
    """To the whole group, as a terminal sends it; the stage ends as it wants, and no further one begins."""
    Path("slow.py").write_text(SLOW)
    (recipe / "01_problems.yaml").write_text("input: { class_path: slow.Slow }\noutput: out/slow.jsonl\n")
    words = [sys.executable, "-m", "sampling", "pipeline", "recipe"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        deadline = time.monotonic() + 60
        while not Path("started").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(running.pid, number)
        _, error = running.communicate(timeout=60)
    assert running.returncode == 7
    assert Path(f"stopped_by_{number:d}").read_text() == "x"
    assert "01_problems ended with exit code 7; go on with:" in error
    assert not Path("out/02_again.jsonl").exists()


def test_the_exit_code_of_a_killed_stage_is_the_shells(recipe):
    assert pipeline.run_process(["this_module_is_nowhere"]) == 1
    Path("dies.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    before = signal.getsignal(signal.SIGTERM)
    assert pipeline.run_process(["dies"]) == 128 + signal.SIGKILL
    assert signal.getsignal(signal.SIGTERM) is before


def test_numbers_and_lists_of_a_pipeline_reach_the_command_as_yaml(recipe):
    (recipe / "pipeline.yaml").write_text("set: { size: 5, extra: true }\nstages: { 01_problems: sampling convert }\n")
    assert lines() == ["sampling convert --config recipe/01_problems.yaml --set size=5 --set extra=true"]
