"""``--limit N``: every stage reads N problems, and says so where its output says how it was made."""

from __future__ import annotations

import json

import pytest

from sampling.__main__ import main
from stepverify import trial
from stepverify.jsonl import read_records, write_records
from stepverify.readers import Solutions, Synthetic
from stepverify.records import Solution
from tests.campaign import stages
from tests.campaign.commands import LINES


def solutions(number: int, samples: int = 2) -> list[Solution]:
    """Samples of a problem stand apart, so that all must be read to find those of the first problems."""
    return [
        Solution(id=f"p{n}#{k}", problem_id=f"p{n}", problem=f"{n}?", steps=["x"], answer="1", predicted="1", correct=True)
        for k in range(samples) for n in range(number)
    ]  # fmt: skip


def ids(lines) -> list[str]:
    return [line.problem_id for line in lines]


def written(out, stage: str) -> dict:
    """What an output says of its configuration."""
    if stage in ("report", "compare"):
        return json.loads((out / "summary.json").read_text())["config"]
    return json.loads((out if stage == "calibrate" else out / "manifest.json").read_text()) | (
        {} if stage == "calibrate" else json.loads((out / "manifest.json").read_text())["config"]
    )


def problems_in(out, stage: str) -> int:
    if stage == "calibrate":
        return len(json.loads(out.read_text())["problems"])
    if stage == "report":
        return json.loads((out / "summary.json").read_text())["num_problems"]
    found = sorted(out.glob("part-*.jsonl")) if out.is_dir() else [out]
    rows = [json.loads(line) for shard in found for line in shard.read_text().splitlines()]
    return len({row.get("problem_id") or row["id"] for row in rows})


@pytest.mark.parametrize("stage", sorted({*LINES} - {"policy", "compare"}))
def test_every_stage_reads_that_many_problems_and_says_so(stage, tmp_path, monkeypatch, capsys):
    """Three of the problems of the campaign's inputs."""
    monkeypatch.chdir(tmp_path)
    stages.prepare(tmp_path)
    words, option, file = LINES[stage]
    words = [*words, "--method", "isotonic"] if stage == "calibrate" else words
    out = tmp_path / ("out.jsonl" if stage in ("grade", "convert") else "out")
    main([stage, *words, option, str(tmp_path / file), "--output", str(out), "--limit", "3"])
    assert "trial: at most 3 problems are read of each input (--limit 3)\n" in capsys.readouterr().out
    assert problems_in(out, stage) == 3
    if stage not in ("grade", "convert"):  # these write rows alone
        assert written(out, stage)["limit"] == 3


def test_a_trial_is_not_taken_for_the_full_run(tmp_path, capsys):
    write_records(tmp_path / "s.jsonl", solutions(4))
    words = ["rank", "--input", str(tmp_path / "s.jsonl"), "--output", str(tmp_path / "out")]
    main([*words, "--limit", "2"])
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        f"sampling rank: {tmp_path / 'out'}: was made with config.limit = 2, now it is None; choose another output folder, or "
        "remove this one\n"
    )


def test_all_solutions_of_the_first_problems_are_read(tmp_path):
    """p0 and p1 have their second samples after the first of p2 and p3."""
    path = tmp_path / "s.jsonl"
    write_records(path, solutions(4))
    with trial.limited(2, {"input": path}):
        assert ids(read_records(path, Solution)) == ["p0", "p1", "p0", "p1"]
        assert ids(read_records(path, Solution)) == ["p0", "p1", "p0", "p1"]  # read again
        reader = trial.limit_reader(Solutions(str(tmp_path / "s.jsonl")))
        assert ids(reader.solutions()) == ["p0", "p1", "p0", "p1"]
        assert [problem.id for problem in reader.problems()] == ["p0", "p1"]
        other = tmp_path / "validation.jsonl"
        write_records(other, solutions(4))
        assert len([*read_records(other, Solution)]) == 8  # no input of the stage
    assert len([*read_records(path, Solution)]) == 8
    assert trial.described() == {}


def test_a_limited_reader_keeps_its_class_and_reads_no_further():
    reader = Synthetic("test", 5)
    taken = []
    reader.problems = lambda: (taken.append(p.id) or p for p in Synthetic.problems(reader))  # type: ignore[method-assign]
    with trial.limited(2, {"problems": reader}) as values:
        assert type(values["problems"]) is Synthetic
        assert len([*values["problems"].problems()]) == 2
    assert len(taken) == 2


def test_labels_are_compared_on_the_first_problems_of_the_reference(tmp_path, capsys):
    """The other labels have the problems in the other order; two problems of two samples of one step are compared."""
    from msgspec.structs import replace

    from stepverify.records import StepLabel

    labelled = [replace(s, step_labels=[StepLabel(rating=1)]) for s in solutions(4)]
    write_records(tmp_path / "a.jsonl", labelled)
    write_records(tmp_path / "b.jsonl", labelled[::-1])
    labels = json.dumps({name: str(tmp_path / f"{name}.jsonl") for name in "ab"})
    words = ["--final_step", "true", "--num_bootstrap", "5", "--output", str(tmp_path / "out"), "--limit", "2"]
    main(["compare", "--labels", labels, "--reference", "a", *words])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["labels"]["b"]["num_steps"], summary["config"]["limit"]) == (4, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("0", "sampling rank: limit: 0: expected 1 or more problems\n"),
        ("few", "sampling rank: --limit: 'few': expected an integer or null\n"),
    ],
)
def test_a_limit_is_a_number_of_problems(given, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["rank", "--input", "x", "--output", str(tmp_path / "out"), "--limit", given])
    assert (stopped.value.code, capsys.readouterr().err) == (2, message)
