"""A command with a mistake that shows only when work begins, and then the corrected one: nothing is in its way."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from sampling.__main__ import main
from stepverify.jsonl import MANIFEST, read_records, write_records
from stepverify.readers import Synthetic
from stepverify.records import Solution

WITHOUT_WEIGHTS = "lit_configs/quickstart/base"


def engine(model: Any) -> dict[str, Any]:
    return {"class_path": "sampling.engines.TransformersEngine", "init_args": {"model": str(model), "device": "cpu"}}


def rollouts(model: Any) -> dict[str, Any]:
    made = {"engine": engine(model), "sampling": {"max_tokens": 4}, "template": {"prompt": "{problem}\n"}}
    return {"class_path": "sampling.labelling.Rollouts", "init_args": made}


def consensus(model: Any, judge: Any) -> dict[str, Any]:
    template = {"prompt": "{problem}"}
    made = {"labeller": rollouts(model), "judge": engine(judge), "template": template, "sampling": {"max_tokens": 4}}
    return {"class_path": "sampling.labelling.Consensus", "init_args": made}


def generate(model: Any) -> dict[str, Any]:
    problems = {"class_path": "stepverify.readers.Synthetic", "init_args": {"split": "test", "num_problems": 2}}
    problems["init_args"]["worked"] = False
    template = {"prompt": "{problem}\n"}
    return {
        "engine": engine(model),
        "problems": problems,
        "num_samples": 1,
        "sampling": {"max_tokens": 4},
        "template": template,
    }


def run(stage: str, values: dict[str, Any], output: Path) -> None:
    words = (f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items())
    main([stage, *words, "--output", str(output)])


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Two solutions of one problem, graded and scored."""
    made = []
    for solution in Synthetic("test", 1).solutions():
        for i, correct in enumerate((True, False)):
            record = Solution(
                **{name: getattr(solution, name) for name in ("problem_id", "problem", "answer", "steps")}, id=f"p#{i}"
            )
            record.predicted, record.correct, record.scores = (
                solution.answer if correct else "7",
                correct,
                {"orm": [0.5]},
            )
            made.append(record)
    write_records(tmp_path / "given" / "part-00000.jsonl", made)
    return tmp_path / "given"


@pytest.fixture
def cases(given: Path, tiny_model_dir: Path) -> dict[str, tuple[str, dict[str, Any], dict[str, Any], str]]:
    """Name → stage, values with a mistake, corrected ones, and what is said of the mistake."""
    tiny, none, input = tiny_model_dir, WITHOUT_WEIGHTS, {"input": str(given)}
    return {
        "generate": ("generate", generate(none), generate(tiny), "no file named model.safetensors"),
        "rollouts": ("label", input | {"steps": rollouts(none)}, input | {"steps": rollouts(tiny)}, "no file named model.safetensors"),
        "judge": ("label", input | {"steps": consensus(none, tiny)}, input | {"steps": consensus(tiny, tiny)}, "no file named model.safetensors"),
        "rank": ("rank", input | {"sizes": [3]}, input | {"sizes": [2]}, "sizes: 3 samples requested"),
        "select": ("select", input | {"total": 1, "verifier": "prm"}, input | {"total": 1, "verifier": "orm"}, "verifier: 'prm' is none of them"),
        "convert": ("convert", input | {"format": "stepwise"}, input, "no solution to write"),
        "report": ("report", {"scores": str(given), "browse": 0, "threshold_subset": "x"}, {"scores": str(given)}, "no solution has it"),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["generate", "rollouts", "judge", "rank", "select", "convert", "report"])
def test_the_corrected_command_runs(name, cases, tmp_path: Path, capsys: pytest.CaptureFixture):
    stage, mistaken, corrected, message = cases[name]
    output = tmp_path / "deep" / "out"
    with pytest.raises(SystemExit) as stopped:
        run(stage, mistaken, output)
    assert stopped.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"sampling {stage}: ")
    assert message in said[-1]
    assert not output.parent.exists()
    run(stage, corrected, output)
    assert output.is_file() if name == "convert" else any(output.iterdir())


@pytest.mark.parametrize("name", ["generate", "rollouts", "judge"])
def test_killed_before_the_first_record(name, cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With nothing cleaned up, as after SIGKILL, and shards that are empty: it goes on, as what it was and corrected."""
    from sampling.runtime.store import Store

    def die(store: Any, *_: Any) -> None:
        """The system closes the file of the lock, and the lock is left."""
        if store._lock is not None:
            store._lock._end.set()
            os.close(store._lock._file)

    stage, mistaken, corrected, _ = cases[name]
    output = tmp_path / "out"
    for values in (mistaken, mistaken):
        with monkeypatch.context() as patched:
            patched.setattr(Store, "__exit__", die)
            with pytest.raises(SystemExit):
                run(stage, values, output)
        manifests = list(output.rglob(MANIFEST))
        assert len(manifests) == {"generate": 1, "rollouts": 2, "judge": 3}[name]
        for manifest in manifests:
            (manifest.parent / "part-00000.jsonl").touch()
    run(stage, corrected, output)
    assert len(list(read_records(output, Solution))) == 2


def test_a_labeller_with_records_keeps_the_stage(cases, tmp_path: Path, tiny_model_dir: Path, capsys):
    """The judge cannot be asked after the completions are sampled: they stay for the corrected judge, and for nothing else."""
    stage, _, values, _ = cases["judge"]
    output, labeller = tmp_path / "out", values["steps"]["init_args"]["labeller"]
    rolled = output / "rollouts" / "part-00000.jsonl"

    def refused(changes: dict[str, Any]) -> str:
        with pytest.raises(SystemExit):
            run(stage, values | changes, output)
        return capsys.readouterr().err.splitlines()[-1]

    mistaken = consensus(tiny_model_dir, WITHOUT_WEIGHTS)
    assert "no file named model.safetensors" in refused({"steps": mistaken})
    assert not (output / "judge").exists()
    kept = rolled.read_bytes()
    other = json.loads(json.dumps(labeller))
    other["init_args"]["seed"] = 1
    assert "rollouts: was made with config.seed = 0, now it is 1" in refused({"steps": other})
    assert "out: was made with config.time_limit = 3.0, now it is 5" in refused({"time_limit": 5.0})
    run(stage, values, output)
    assert len(list(read_records(output, Solution))) == 2
    assert rolled.read_bytes() == kept
    assert json.loads((output / MANIFEST).read_text())["config"]["steps"]["judge"]["model"] == str(tiny_model_dir)


def predict(root: Path, backbone: Any, given: Path) -> list[str]:
    from tests.helpers.runs import config

    writer = {
        "class_path": "stepverify.callbacks.ScoreWriter",
        "init_args": {"folder": str(root / "out"), "name": "prm"},
    }
    file = config(
        "ProcessRewardModel", root, model__init_args__backbone={"path": str(backbone)}, data__train=None,
        data__validation=None, trainer__logger=False, trainer__callbacks=[writer],
        data__predict={"class_path": "stepverify.readers.Solutions", "init_args": {"path": str(given)}},
    )  # fmt: skip
    return ["predict", "--config", file]


def test_predict_leaves_nothing_of_a_mistake_and_begins_again_after_a_kill(
    given: Path, tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture
):
    """A killed one left the shard of one rank of two, and nobody reads that as the whole."""
    from sampling.runtime.store import read_summary
    from stepverify.cli import main as stepverify
    from stepverify.records import InputError

    root = tmp_path / "run"
    with pytest.raises(SystemExit):
        stepverify(predict(root, WITHOUT_WEIGHTS, given))
    assert not (root / "out").exists()
    stepverify(predict(root, tiny_model_dir, given))
    whole = (root / "out" / "part-00000.jsonl").read_bytes()
    assert len(list(read_records(root / "out", Solution))) == 2
    assert read_summary(root / "out") == {"verifier": "prm", "ranks": 1, "trained_on": {"prm": None}}
    capsys.readouterr()
    with pytest.raises(SystemExit):
        stepverify(predict(root, WITHOUT_WEIGHTS, given))
    assert "out: not empty; choose another output folder" in capsys.readouterr().err  # before the model
    manifest = json.loads((root / "out" / MANIFEST).read_text())
    (root / "out" / MANIFEST).write_text(json.dumps(manifest | {"finished": False, "summary": {}}))
    (root / "out" / "part-00000.jsonl").rename(root / "out" / "part-00001.jsonl")
    with pytest.raises(InputError, match="has not finished"):
        list(read_records(root / "out", Solution))
    stepverify(predict(root, tiny_model_dir, given))
    assert sorted(p.name for p in (root / "out").iterdir()) == [MANIFEST, "part-00000.jsonl"]
    assert (root / "out" / "part-00000.jsonl").read_bytes() == whole
