"""The generate stage: what it asks an engine for, what it writes, and that a kill changes neither."""

import json

import pytest

from sampling.__main__ import main
from sampling.engines import Completion, SamplingOptions
from sampling.runtime.inputs import exported_template, read_problems
from sampling.runtime.provenance import digest
from sampling.runtime.seeds import derive_seed
from stepverify.jsonl import read_records
from stepverify.records import InputError, Solution
from stepverify.template import Template
from tests.helpers.engines import FakeEngine
from tests.helpers.generating import THREE, run
from tests.helpers.kills import yaml
from tests.helpers.problems import Given, problem

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


class Refusing(FakeEngine):
    """A server that refuses every third sample, and skips it."""

    @staticmethod
    def completion(seed):
        return Completion([], "", "refused") if seed % 3 == 0 else FakeEngine.completion(seed)


def test_what_a_server_refused_in_a_shard_is_not_asked_for_again(tmp_path):
    """Of 9 samples, 3 of each problem, one of each is refused: left out, counted and named once the shards are merged."""
    _, whole = run(tmp_path / "whole", Refusing(), num_samples=3)
    for number in (1, 2):
        run(tmp_path / "parts" / str(number), Refusing(), num_samples=3, shard=f"{number}/2")
    engine, merged = run(tmp_path / "out", Refusing(), num_samples=3, reuse_from=[tmp_path / "parts" / "*"])
    assert engine.asked == []
    assert (len(merged), merged) == (6, whole)
    summaries = [json.loads((tmp_path / name / "manifest.json").read_text())["summary"] for name in ("whole", "out")]
    assert summaries[1] | {"seconds": 0} == summaries[0] | {"seconds": 0}
    assert summaries[1]["refused"]["count"] == 3


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
