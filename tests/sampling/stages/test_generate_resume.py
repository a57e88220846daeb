"""A generate stage that is killed or torn goes on: nothing is lost, doubled or sampled otherwise."""

import json
import os
import random
import shutil
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.__main__ import main
from sampling.engines import SamplingOptions
from stepverify.jsonl import read_records
from stepverify.readers import Synthetic
from stepverify.records import InputError, Solution
from stepverify.template import Template
from tests.helpers.engines import FakeEngine
from tests.helpers.generating import run
from tests.helpers.kills import run_with_kills, yaml
from tests.helpers.problems import Given, problem

# ── resume ────────────────────────────────────────────────────────────────────────────────────────


def unfinish(output):
    manifest = output / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"finished": False, "summary": {}}))


def test_a_finished_stage_asks_for_nothing(tmp_path, capsys):
    run(tmp_path / "o")
    engine, solutions = run(tmp_path / "o")
    assert engine.asked == []
    assert len(solutions) == 12
    assert "already finished, 12 solutions" in capsys.readouterr().out


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """``finished()``: a copy of a finished stage's folder; and its solutions."""
    root = tmp_path_factory.mktemp("finished")
    _, whole = run(root / "o")
    return lambda: shutil.copytree(root / "o", tmp_path_factory.mktemp("copy") / "o"), whole


@given(gone=st.sets(st.integers(0, 11)))
@settings(deadline=None, max_examples=30)
def test_resume_asks_for_exactly_what_is_missing(finished, gone):
    """Whichever lines are taken out: the same samples come back, with the same seeds, and no other is asked for."""
    copy, whole = finished
    output = copy()
    shard = output / "part-00000.jsonl"
    lines = shard.read_text().splitlines(keepends=True)
    absent = {json.loads(line)["id"] for i, line in enumerate(lines) if i in gone}
    shard.write_text("".join(line for i, line in enumerate(lines) if i not in gone))
    unfinish(output)
    engine, again = run(output)
    assert again == whole
    asked = {
        f"{request.key.rpartition('#')[0]}#{int(request.key.rpartition('#')[2]) + i}": request.seed + i
        for request in engine.asked
        for i in range(request.n)
    }
    assert asked == {key: whole[key].seed for key in absent}
    assert sum(request.n for request in engine.asked) == len(absent)


@given(share=st.floats(0, 1))
@settings(deadline=None, max_examples=30)
def test_a_shard_torn_anywhere_is_made_whole(finished, share):
    copy, whole = finished
    output = copy()
    shard = output / "part-00000.jsonl"
    size = int(share * shard.stat().st_size)
    kept = shard.read_bytes()[:size].count(b"\n")
    os.truncate(shard, size)
    unfinish(output)
    engine, again = run(output)
    assert again == whole
    assert sum(request.n for request in engine.asked) == 12 - kept


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"num_samples": 5}, "config.num_samples = 4, now it is 5"),
        ({"seed": 3}, "config.seed = 0, now it is 3"),
        ({"sampling": SamplingOptions(temperature=0.1)}, "config.sampling.temperature = 0.7, now it is 0.1"),
        ({"template": Template(step_tag="+1")}, "config.template.step_tag = '<step>', now it is '[+]1'"),
        ({"problems": Given(problem(1))}, "config.problems = "),
        ({"few_shot": Given(problem(9, steps=["x"]))}, "config.few_shot = "),
    ],
)
def test_another_configuration_is_refused_by_name(tmp_path, changed, key):
    output = tmp_path / "o"
    run(output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    engine = FakeEngine()
    with pytest.raises(InputError, match=key):
        run(output, engine, **changed)
    assert engine.asked == []
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_batch_size_is_no_part_of_the_configuration(tiny_model_dir, tmp_path):
    from sampling.engines import TransformersEngine

    problems = Synthetic("test", 3, worked=False)
    options = {"num_samples": 2, "sampling": SamplingOptions(temperature=1.0, max_tokens=12)}
    _, first = run(tmp_path / "a", TransformersEngine(str(tiny_model_dir), batch_size=6), problems, **options)
    unfinish(tmp_path / "a")
    (tmp_path / "a" / "part-00000.jsonl").unlink()
    _, again = run(tmp_path / "a", TransformersEngine(str(tiny_model_dir), batch_size=1), problems, **options)
    assert again == first
    assert all(len(s.token_ids) <= 12 for s in first.values())


# ── killed ────────────────────────────────────────────────────────────────────────────────────────


CHILD = """
import sys
from pathlib import Path
from sampling.stages.generate import generate
from tests.helpers.engines import FakeEngine
from tests.helpers.problems import Given, problem
generate(FakeEngine(delay=0.01), Given(*map(problem, range(60))), Path(sys.argv[1]), num_samples=3)
"""


def test_sigkill_at_random_moments_loses_and_doubles_nothing(tmp_path):
    _, whole = run(tmp_path / "whole", problems=Given(*map(problem, range(60))), num_samples=3)
    killed = run_with_kills(
        [sys.executable, "-c", CHILD, str(tmp_path / "o")], tmp_path / "o", 180, kills=3, rng=random.Random(1)
    )
    assert killed >= 2  # on a busy machine a run may end before it is killed
    solutions = list(read_records(tmp_path / "o", Solution))
    assert Counter(s.id for s in solutions).most_common(1)[0][1] == 1
    assert {s.id: s for s in solutions} == whole


@pytest.mark.slow
def test_sigkill_of_the_program_with_a_real_network(tiny_model_dir, tmp_path):
    """A batch is one problem's samples, so an interrupted run computes the very same batches."""
    settled = {"num_problems": 40, "num_samples": 3, "max_tokens": 32}
    program = [sys.executable, "-m", "sampling", "generate", "--config"]
    whole = yaml(tmp_path / "whole.yaml", tiny_model_dir, tmp_path / "whole", **settled)
    main(["generate", "--config", whole])
    config = yaml(tmp_path / "o.yaml", tiny_model_dir, tmp_path / "o", **settled)
    killed = run_with_kills([*program, config], tmp_path / "o", 120, kills=4, rng=random.Random(2))
    assert killed >= 3
    expected = {s.id: s for s in read_records(tmp_path / "whole", Solution)}
    solutions = list(read_records(tmp_path / "o", Solution))
    assert len(solutions) == len(expected) == 120
    assert {s.id: s for s in solutions} == expected
