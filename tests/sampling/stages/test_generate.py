"""The generate stage: what it asks an engine for, what it writes, and that a kill changes neither."""

import json
import os
import random
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.__main__ import main
from sampling.engines import SamplingOptions
from sampling.runtime.inputs import exported_template, read_problems
from sampling.runtime.provenance import digest
from sampling.runtime.seeds import derive_seed
from sampling.stages.generate import generate
from stepverify.jsonl import read_records
from stepverify.readers import Synthetic
from stepverify.records import InputError, Solution
from stepverify.template import Template
from tests.helpers.engines import FakeEngine
from tests.helpers.kills import run_with_kills, yaml
from tests.helpers.problems import Given, problem

THREE = Given(*map(problem, range(3)))


def run(output, engine=None, problems=THREE, num_samples=4, **options):
    engine = engine or FakeEngine()
    generate(engine, problems, output, num_samples=num_samples, **options)
    return engine, {s.id: s for s in read_records(output, Solution)}


# ── what is asked and what is written ─────────────────────────────────────────────────────────────


def test_every_field_of_a_solution(tmp_path):
    """Text is split into stripped lines; ids, finish and seed are the engine's; meta is the problem's."""
    engine, solutions = run(tmp_path / "o", problems=Given(problem(7, meta={"modulus": 11}, steps=["worked"])))
    base = derive_seed(0, "p/7")
    assert list(solutions) == ["p/7#0", "p/7#1", "p/7#2", "p/7#3"]
    for i, solution in enumerate(solutions.values()):
        assert solution == Solution(
            id=f"p/7#{i}", problem_id="p/7", problem="What is 7?", answer="7", meta={"modulus": 11},
            steps=[f"seed {base + i}", "then", f"#### {(base + i) % 11}"], token_ids=[(base + i) % 97, 0],
            finish="length" if (base + i) % 5 == 0 else "stop", seed=base + i, generator="fake",
        )  # fmt: skip
    (request,) = engine.asked
    assert (request.key, request.n, request.seed) == ("p/7#0", 4, base)
    assert "".join(map(chr, request.prompt_ids)) == "Question: What is 7?\nAnswer:\n"


def test_options_reach_the_engine_and_the_summary_counts(tmp_path):
    options = SamplingOptions(temperature=0.3, max_tokens=9)
    engine, solutions = run(tmp_path / "o", sampling=options)
    assert engine.options == options
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text())
    assert manifest["finished"] is True
    assert (manifest["summary"]["problems"], manifest["summary"]["solutions"]) == (3, 12)
    assert manifest["summary"]["tokens_this_run"] == sum(len(s.token_ids) for s in solutions.values()) == 24
    assert manifest["config"]["engine"] == {"engine": "fake", "model": "fake"}


def test_seed_is_of_run_problem_and_sample(tmp_path):
    """Another run seed or problem id: other seeds. More samples: the first ones keep theirs."""
    seeds = {s.id: s.seed for s in run(tmp_path / "a")[1].values()}
    assert len(set(seeds.values())) == 12
    more = {s.id: s.seed for s in run(tmp_path / "b", num_samples=6)[1].values()}
    assert {key: more[key] for key in seeds} == seeds
    other = {s.id: s.seed for s in run(tmp_path / "c", seed=1)[1].values()}
    assert not set(other.values()) & set(seeds.values())


# ── samples sampled before ──────────────────────────────────────────────────────────────────────────


def test_only_what_is_missing_is_drawn_when_more_is_wanted(tmp_path):
    """3 problems × 4 samples are there, 4 × 6 are wanted: the engine draws samples 4 and 5 of three, all of the fourth."""
    four = Given(*map(problem, range(4)))
    run(tmp_path / "before")
    alone = run(tmp_path / "alone", problems=four, num_samples=6)[1]
    engine, found = run(tmp_path / "more", problems=four, num_samples=6, reuse_from=[tmp_path / "before"])
    assert found == alone
    assert [(r.key, r.n) for r in engine.asked] == [("p/0#4", 2), ("p/1#4", 2), ("p/2#4", 2), ("p/3#0", 6)]
    manifest = json.loads((tmp_path / "more" / "manifest.json").read_text())
    assert manifest["summary"]["reuse_from"] == 12
    assert manifest["config"] == json.loads((tmp_path / "alone" / "manifest.json").read_text())["config"]


def test_fewer_of_a_killed_run_need_no_engine_and_an_edited_problem_is_drawn_again(tmp_path):
    """Of 3 × 4 a kill left nine and a torn line. Two samples of each: those of the third are half there, its text changed."""
    run(tmp_path / "killed")
    shard, manifest = tmp_path / "killed" / "part-00000.jsonl", tmp_path / "killed" / "manifest.json"
    lines = shard.read_text().splitlines(keepends=True)
    shard.write_text("".join(lines[:9]) + lines[9][:40])
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"finished": False, "summary": {}}))
    options = {"num_samples": 2, "reuse_from": [tmp_path / "killed"]}
    engine, found = run(tmp_path / "two", **options)
    assert [(r.key, r.n) for r in engine.asked] == [("p/2#1", 1)]
    assert found == run(tmp_path / "alone", num_samples=2)[1]
    edited = Given(problem(0), problem(1), problem(2, problem="What is two?"))
    engine, found = run(tmp_path / "edited", problems=edited, **options)
    assert [(r.key, r.n) for r in engine.asked] == [("p/2#0", 2)]
    assert found == run(tmp_path / "edited alone", problems=edited, num_samples=2)[1]


def test_no_model_is_loaded_where_all_is_there(tmp_path):
    class NoEngine(FakeEngine):
        @property
        def tokenizer(self):
            raise AssertionError("asked for a tokenizer")

        async def complete(self, request, options):
            raise AssertionError("asked for a model")

    run(tmp_path / "before")
    found = run(tmp_path / "fewer", NoEngine(), num_samples=3, reuse_from=[tmp_path / "before"])[1]
    assert found == run(tmp_path / "alone", num_samples=3)[1]


def test_samples_of_another_law_are_refused_and_leave_no_folder(tmp_path):
    run(tmp_path / "before")
    (tmp_path / "other").mkdir()
    for name, options, message in (
        ("before", {"seed": 1}, "before was sampled with seed = 0, this run has 1"),
        ("before", {"sampling": SamplingOptions(temperature=0.5)}, "was sampled with sampling = "),
        ("other", {}, "other: not the output of stage generate"),
    ):
        with pytest.raises(InputError, match=message):
            run(tmp_path / "o", reuse_from=[tmp_path / name], **options)
    assert not (tmp_path / "o").exists()


def test_derive_seed_by_hand():
    """The first 62 bits of the SHA-256 of '0\\x1fp/7', as sha256sum gives it: 716994a9352282cc..."""
    assert derive_seed(0, "p/7") == 0x716994A9352282CC // 4 < 2**62
    assert len({derive_seed(0, "a", "b"), derive_seed(0, "ab"), derive_seed("0a", "b"), derive_seed(0, "b", "a")}) == 4


def test_few_shot_examples_stand_in_front_of_every_prompt(tmp_path):
    example = problem(9, steps=["9 is 9", "#### 9"])
    engine, _ = run(
        tmp_path / "o", few_shot=Given(example), template=Template(prompt="Q {problem}\n", step_separator="\n")
    )
    shot = "Q What is 9?\n9 is 9\n#### 9\n\n"
    texts = ["".join(map(chr, r.prompt_ids)) for r in engine.asked]
    assert texts == [f"{shot}Q What is {i}?\n" for i in range(3)]


def test_layout_comes_from_the_export_of_the_model(tmp_path):
    template = Template(prompt="exported {problem}\n")
    template.save(tmp_path, objective="generator")
    assert exported_template(str(tmp_path)) == template
    assert exported_template("fake") == Template()
    engine = FakeEngine()
    engine.model = str(tmp_path)
    run(tmp_path / "o", engine)
    assert "".join(map(chr, engine.asked[0].prompt_ids)) == "exported What is 0?\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"few_shot": Given(problem(9, steps=["x"]), problem(1, steps=["x"]))},
            "example p/1 is also one of the problems",
        ),
        ({"few_shot": Given(problem(9))}, "p/9: has no worked solution"),
        ({"problems": Given(problem(1), problem(2), problem(1))}, "'p/1' occurs twice"),
        ({"problems": Given()}, "no problem was read"),
        ({"num_samples": 0}, "num_samples: expected >= 1, got 0"),
    ],
)
def test_bad_input_writes_no_solution(tmp_path, options, message):
    engine = FakeEngine()
    with pytest.raises(InputError, match=message):
        run(tmp_path / "o", engine, **options)
    assert engine.asked == []
    assert not list(tmp_path.rglob("*.jsonl"))


def test_digest_sees_every_field():
    assert digest([problem(1)]) == digest([problem(1)])
    variants = [[problem(1)], [problem(2)], [problem(1, answer="x")], [problem(1, meta={"a": 1})], [], [problem(1)] * 2]
    assert len({digest(v) for v in variants}) == len(variants)
    assert [p.id for p in read_problems(THREE)] == ["p/0", "p/1", "p/2"]


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


@given(st.sets(st.integers(0, 11)))
@settings(deadline=None, max_examples=30)
def test_resume_asks_for_exactly_what_is_missing(tmp_path_factory, gone):
    """Whichever lines are taken out: the same samples come back, with the same seeds, and no other is asked for."""
    output = tmp_path_factory.mktemp("resume") / "o"
    _, whole = run(output)
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


@given(st.floats(0, 1))
@settings(deadline=None, max_examples=30)
def test_a_shard_torn_anywhere_is_made_whole(tmp_path_factory, share):
    output = tmp_path_factory.mktemp("torn") / "o"
    _, whole = run(output)
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


# ── through the program ───────────────────────────────────────────────────────────────────────────


def test_the_program_runs_a_yaml_and_refuses_another_one(tiny_model_dir, tmp_path, capsys):
    config = yaml(tmp_path / "g.yaml", tiny_model_dir, tmp_path / "o", num_problems=2)
    main(["generate", "--config", config])
    assert len(list(read_records(tmp_path / "o", Solution))) == 6
    before = {path.name: path.read_bytes() for path in (tmp_path / "o").iterdir()}
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["generate", "--config", config, "--sampling.temperature", "0.5"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sampling generate: {tmp_path}/o: was made with config.sampling.temperature = 1.0")
    assert {path.name: path.read_bytes() for path in (tmp_path / "o").iterdir()} == before


def test_bad_input_through_the_program_leaves_no_folder(tiny_model_dir, tmp_path, capsys):
    config = yaml(tmp_path / "g.yaml", tiny_model_dir, tmp_path / "o")
    with pytest.raises(SystemExit) as stopped:
        main(["generate", "--config", config, "--num_samples", "0"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "sampling generate: num_samples: expected >= 1, got 0\n"
    assert not (tmp_path / "o").exists()


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
    assert killed == 3
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
