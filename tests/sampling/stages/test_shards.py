"""Job arrays: the merged shards of a stage are the folder of one run; what does not fit together is refused."""

import json
import re
import shutil

import pytest

from sampling.__main__ import main
from sampling.runtime.problem_shard import shard_number
from sampling.runtime.store import Store
from sampling.search import BeamSearch
from sampling.stages.label import label
from sampling.stages.score import score
from stepverify.jsonl import read_records, write_records
from stepverify.records import InputError, Solution
from tests.helpers.searches import Valued
from tests.helpers.shards import Stages, left_by, of_length
from tests.helpers.walks import samples

NAMES = ("generate", "label", "score", "search")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The stages; of each, one run (``NAME``) and the three shards of another (``NAME/1`` to ``NAME/3`` of ``shards``)."""
    root = tmp_path_factory.mktemp("shards")
    stages = Stages(samples(root, problems=9, number=4))
    for name in NAMES:
        stages[name](root / name)
        for number in (1, 2, 3):
            stages[name](root / "shards" / name / str(number), shard=f"{number}/3")
    stages.asked.clear()
    return stages, root


@pytest.fixture
def shards(made, tmp_path):
    """``shards(name)``: a copy of the three shards of a stage."""

    def copied(name):
        shutil.copytree(made[1] / "shards" / name, tmp_path / "shards")
        return tmp_path / "shards"

    made[0].asked.clear()
    return copied


@pytest.mark.parametrize("name", NAMES)
def test_three_shards_are_the_single_run_record_for_record(made, tmp_path, capsys, name):
    """Records of all folders, manifests with all sums, and nothing is sampled or scored for it."""
    stages, root = made
    stages.asked.clear()
    stages[name](tmp_path / "out", reuse_from=[root / "shards" / name / "*"])
    assert stages.asked == []
    merged, whole = left_by(tmp_path / "out"), left_by(root / name)
    assert merged == whole
    assert (sum(map(len, (records for _, records in whole.values())))) > 9
    parts = [left_by(root / "shards" / name / str(number)) for number in (1, 2, 3)]
    for nested, (manifest, records) in whole.items():
        assert sorted(key for part in parts for key in part[nested][1]) == sorted(records)
        figures = {key for key in manifest["summary"] if key.endswith("_this_run")}
        for key in figures:
            assert manifest["summary"][key] == sum(part[nested][0]["summary"][key] for part in parts)
    assert whole[""][0]["summary"]["items_this_run"] == (9 if name == "search" else 27 if name == "generate" else 36)
    assert f"{tmp_path / 'out'}: 3 of 3 shards merged; 0 " in capsys.readouterr().out
    stages[name](tmp_path / "out", reuse_from=[tmp_path / "removed" / "*"])
    assert f"{tmp_path / 'out'}: already finished" in capsys.readouterr().out


def test_merged_scores_stand_in_the_order_of_the_input(made, tmp_path):
    stages, root = made
    stages.score(tmp_path / "out", reuse_from=[root / "shards" / "score" / "*"])
    (one,), (other,) = ((at / "score" if at == root else at).glob("part-*") for at in (root, tmp_path / "out"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_missing_and_unfinished_shards_are_completed_on_request(made, shards, tmp_path, capsys, name):
    """Shard 1 was killed after its first lines, shard 2 is not there: what they lack is made here, and nothing else."""
    stages, root = made
    folder = shards(name)
    shutil.rmtree(folder / "2")
    unfinish(folder / "1", keep=2)
    stages[name](tmp_path / "out", reuse_from=[folder / "*"], complete_shards=True)
    found, whole = left_by(tmp_path / "out"), left_by(root / name)
    assert {nested: records for nested, (_, records) in found.items()} == {
        n: records for n, (_, records) in whole.items()
    }
    third = left_by(folder / "3")[""][0]["summary"]["items_this_run"]
    made_here = int(re.search(r"2 of 3 shards merged; (\d+)", capsys.readouterr().out)[1])
    kept = {"search": 0}.get(name, 2)
    assert made_here == whole[""][0]["summary"]["items_this_run"] - third - kept
    assert found[""][0]["summary"]["items_this_run"] == third + made_here
    assert stages.asked


def unfinish(folder, keep):
    """Leave a folder as a kill after its first records would have; a search has no result yet then."""
    for at in [folder, *(path for path in folder.iterdir() if path.is_dir())]:
        manifest = json.loads((at / "manifest.json").read_text())
        (at / "manifest.json").write_text(json.dumps(manifest | {"finished": False, "summary": {}}))
        lines = (at / "part-00000.jsonl").read_text().splitlines(keepends=True)
        kept = 0 if at.name == "results" else keep if at == folder else len(lines)
        (at / "part-00000.jsonl").write_text("".join(lines[:kept]) + '{"id": "to')


@pytest.mark.parametrize("name", ["label", "score"])
def test_a_merge_that_was_killed_goes_on(made, tmp_path, monkeypatch, name):
    stages, root = made
    plain, writes = Store.write, []

    def written(self, records):
        writes.append(self)
        if len(writes) == 2:
            raise KeyboardInterrupt
        plain(self, records)

    monkeypatch.setattr("sampling.runtime.merging.COPIED", 10)
    monkeypatch.setattr(Store, "write", written)
    with pytest.raises(KeyboardInterrupt):
        stages[name](tmp_path / "out", reuse_from=[root / "shards" / name / "*"])
    monkeypatch.undo()
    stages.asked.clear()
    stages[name](tmp_path / "out", reuse_from=[root / "shards" / name / "*"])
    assert stages.asked == []
    assert left_by(tmp_path / "out") == left_by(root / name)


# ── refused ───────────────────────────────────────────────────────────────────────────────────────

OTHER = {
    "generate": ({"seed": 1}, "seed"), "label": ({"time_limit": 5.0}, "time_limit"),
    "search": ({"strategy": BeamSearch(4, 4)}, "strategy.width"),
}  # fmt: skip


def refused(made, name, tmp_path, reuse_from, **options):
    """The line with which a merge is refused, before anything is asked or written."""
    stages, _ = made
    stages.asked.clear()
    with pytest.raises(InputError) as caught:
        stages[name](tmp_path / "out", reuse_from=reuse_from, **options)
    assert stages.asked == []
    assert not (tmp_path / "out").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(tmp_path), "").replace(str(made[1]), "")


@pytest.mark.parametrize("name", NAMES)
def test_missing_shards_are_named(made, shards, tmp_path, name):
    shutil.rmtree((folder := shards(name)) / "1")
    shutil.rmtree(folder / "3")
    assert refused(made, name, tmp_path, [folder / "*"]) == (
        "reuse_from: missing shards: 1/3, 3/3; give their folders too, or set complete_shards: true to make here what is "
        "missing"
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_unfinished_shard_is_named(made, shards, tmp_path, name):
    unfinish((folder := shards(name)) / "2", keep=1)
    assert refused(made, name, tmp_path, [folder / "*"]) == (
        "reuse_from: /shards/2 (shard 2/3) has not finished; run it again to its end, or set complete_shards: true to "
        "make here what is missing"
    )


@pytest.mark.parametrize("name", OTHER)
def test_shards_of_another_configuration_are_refused(made, tmp_path, name):
    changed, key = OTHER[name]
    found = refused(made, name, tmp_path, [made[1] / "shards" / name / "*"], **changed)
    assert found.startswith(f"reuse_from: /shards/{name}/1: shard 1/3 was made with {key} = ")


def test_shards_that_hold_the_same_problems_are_refused(made, shards, tmp_path):
    folder = shards("generate")
    shutil.copytree(folder / "2", folder / "2 again")
    assert refused(made, "generate", tmp_path, [folder / "*"]) == (
        "reuse_from: /shards/2 and /shards/2 again are both shard 2/3, of the same problems"
    )
    shutil.rmtree(folder / "2 again")
    made[0].generate(folder / "4", shard="4/5")
    assert refused(made, "generate", tmp_path, [folder / "*"]) == (
        "reuse_from: /shards/4 is shard 4/5, /shards/1 is 1/3: shards of two divisions hold the same problems; give "
        "those of one"
    )


def test_records_of_another_shard_are_refused(made, shards, tmp_path):
    """Lines moved from one shard to another, without a manifest that knows their number."""
    folder = shards("score")
    first, second = folder / "1" / "part-00000.jsonl", folder / "2" / "part-00000.jsonl"
    first.write_text(first.read_text() + second.read_text())
    assert "was changed after its stage had finished" in refused(made, "score", tmp_path, [folder / "*"])
    unfinish(folder / "1", keep=99)
    with pytest.raises(InputError, match="belongs to shard 2/3, and this is 1/3; its records were moved or edited"):
        made[0].score(tmp_path / "out", reuse_from=[folder / "*"], complete_shards=True)


@pytest.mark.parametrize(
    ("name", "reuse_from", "options", "expected"),
    [
        ("score", "score", {}, "reuse_from: {}: not a shard of stage score (made with `shard: i/n`)"),
        ("label", "score", {}, "reuse_from: {}: not the output of stage label"),
        (
            "score",
            "shards/score/*",
            {"shard": "1/2"},
            "reuse_from: shards are merged by a run of all problems; this is",
        ),
        ("search", "nothing/*", {}, "reuse_from: {}: no such folder"),
        ("generate", "generate", {"complete_shards": True}, "complete_shards: true: expected shards in reuse_from"),
    ],
)
def test_what_is_no_shard_is_refused(made, tmp_path, name, reuse_from, options, expected):
    found = refused(made, name, tmp_path, [made[1] / reuse_from], **options)
    assert found.startswith(expected.format(f"/{reuse_from}"))


def test_bad_values_end_the_program_in_one_line(tmp_path, capsys):
    args = ["score", "--input", str(tmp_path), "--output", str(tmp_path / "out"), "--verifiers", '{"v": "export"}']
    with pytest.raises(SystemExit) as ended:
        main([*args, "--shard", "5/4"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "sampling score: shard: '5/4': expected i/n with i from 1 to n, as 1/4\n"


# ── jobs that run several stages ──────────────────────────────────────────────────────────────────


def test_each_job_may_run_all_stages_on_its_shard(made, tmp_path):
    """Job i labels and scores what it has sampled; each stage is merged after, in its turn."""
    stages, root = made
    for number in (1, 2, 3):
        stages.label(tmp_path / "labels" / str(number), root / "shards" / "generate" / str(number), shard=f"{number}/3")
        stages.score(tmp_path / "scores" / str(number), tmp_path / "labels" / str(number), shard=f"{number}/3")
    stages.generate(tmp_path / "sampled", reuse_from=[root / "shards" / "generate" / "*"])
    stages.label(tmp_path / "whole labels", tmp_path / "sampled")
    stages.score(tmp_path / "whole scores", tmp_path / "whole labels")
    stages.asked.clear()
    stages.label(tmp_path / "labelled", tmp_path / "sampled", reuse_from=[tmp_path / "labels" / "*"])
    stages.score(tmp_path / "scored", tmp_path / "labelled", reuse_from=[tmp_path / "scores" / "*"])
    assert stages.asked == []
    assert left_by(tmp_path / "labelled") == left_by(tmp_path / "whole labels")
    records = [left_by(tmp_path / name)[""][1] for name in ("scored", "whole scores")]
    assert records[0] == records[1]


@pytest.mark.parametrize("stage", [label, score])
@pytest.mark.parametrize("edit", ["changed", "more", "fewer"])
def test_shards_of_other_solutions_are_refused(made, tmp_path, stage, edit):
    """Their own input was another file than this run's: its solutions must be the same, and as many."""
    stages, _ = made
    solutions = list(read_records(stages.given, Solution))
    write_records(tmp_path / "all.jsonl", solutions)
    first = next(i for i, s in enumerate(solutions) if shard_number(s.problem_id, 2) == 1)
    if edit == "changed":
        solutions[first].steps[0] = "1" if solutions[first].steps[0] == "0" else "0"
    elif edit == "more":
        solutions[first].id += "0"
    else:
        del solutions[first]
    write_records(tmp_path / "other.jsonl", solutions)
    run = {label: stages.label, score: stages.score}[stage]
    for number in (1, 2):
        run(tmp_path / "parts" / str(number), tmp_path / "other.jsonl", shard=f"{number}/2")
    expected = "was made of [0-9]+ solutions" if edit == "fewer" else "was another one there than in"
    with pytest.raises(InputError, match=f"parts/1: .*{expected}"):
        run(tmp_path / "out", tmp_path / "all.jsonl", reuse_from=[tmp_path / "parts" / "*"])
    assert not (tmp_path / "out").exists()


def test_more_shards_than_problems(made, tmp_path):
    """9 problems in 20 shards: some are empty, finish all the same, and are merged."""
    stages, root = made
    for number in range(1, 21):
        stages.score(tmp_path / "parts" / f"{number:02}", shard=f"{number}/20")
    assert not all([*folder.glob("part-*")] for folder in (tmp_path / "parts").iterdir())
    stages.score(tmp_path / "out", reuse_from=[tmp_path / "parts" / "*"])
    assert left_by(tmp_path / "out") == left_by(root / "score")
    for number in (1, 20):
        stages.search(tmp_path / "searched" / str(number), shard=f"{number}/20")


def test_a_shard_reads_only_its_problems(made, tmp_path):
    scorer = Valued(of_length)
    score(made[0].given, tmp_path / "out", {"v": scorer}, shard="2/3")
    solutions = [s for s in read_records(made[0].given, Solution) if shard_number(s.problem_id, 3) == 2]
    assert sorted(scorer.read) == sorted(tuple(s.steps) for s in solutions)
