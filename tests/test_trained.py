"""Problems that are measured on and were trained on: fit, score, rank and report say so."""

import json
import shutil

import pytest

from sampling.runtime.trained import trained_on
from sampling.stages.label import label
from sampling.stages.rank import rank
from sampling.stages.report import report
from sampling.stages.score import score
from stepverify.cli import main
from stepverify.jsonl import read_records, write_records
from stepverify.readers import Synthetic
from stepverify.readers.released import digest
from stepverify.records import Solution, StepLabel
from stepverify.training_problems import count_trained, read_training_problems, write_training_problems
from tests.helpers.fits import fit, write_labelled
from tests.helpers.runs import BACKBONE


def test_digests_lie_sorted_in_a_small_file(tmp_path):
    texts = {f"What is {i} + 1?" for i in range(1000)}
    write_training_problems(tmp_path, map(digest, texts))
    lines = (tmp_path / "training_problems.txt").read_text().splitlines()
    assert lines == sorted(map(digest, texts))
    assert (tmp_path / "training_problems.txt").stat().st_size == 17_000
    assert read_training_problems(tmp_path) == {*lines}
    asked = {digest("what is  7 + 1 ?"): "a", digest("What is 7 + 2?"): "b", digest("What is 9 + 1?"): "c"}
    assert count_trained(tmp_path, asked) == {"problems": 2, "of": 3, "first": "a"}
    assert count_trained(tmp_path, {"0": "x"}) == {"problems": 0, "of": 1, "first": None}
    assert count_trained(tmp_path / "none", asked) is None


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A PRM that learned from the first 32 of 48 problems, beside what its fit said; validated on the last 24."""
    root = tmp_path_factory.mktemp("trained")
    labelled = list(read_records(write_labelled(root / "all"), Solution))
    write_records(root / "train" / "part-00000.jsonl", labelled[:32])
    held = labelled[24:]
    for s in held:  # another id and spacing: the text tells
        s.problem, s.problem_id, s.id = s.problem.replace(" ; ", "  ;\n").upper(), f"v/{s.problem_id}", f"v/{s.id}"
    write_records(root / "held" / "part-00000.jsonl", held)
    with pytest.warns(UserWarning, match="in data.train too") as said:
        fit(root / "run", "ProcessRewardModel", root / "train", BACKBONE, validation=root / "held")
    return root, [str(w.message) for w in said if "in data.train too" in str(w.message)]


def test_fit_warns_of_problems_on_both_sides(trained):
    """Ids and spacing differ: by their texts the first 8 of the 24 that were held out."""
    _, said = trained
    assert len(said) == 1
    assert said[0].startswith("data.validation: 8 of 24 problems are in data.train too, v/synthetic/train/24 for one: ")


def test_every_form_of_an_export_knows_its_problems(trained):
    root, _ = trained
    train = {digest(s.problem) for s in read_records(root / "train", Solution)}
    assert read_training_problems(root / "run/export") == train
    assert read_training_problems(root / "run/export/classifier") == train


def test_a_second_stage_keeps_the_problems_of_the_first(trained, tmp_path):
    root, _ = trained
    other = list(Synthetic("test", 8, num_steps=3).solutions())
    for s in other:
        s.step_labels = [StepLabel(rating=1)] * len(s.steps)
    write_records(tmp_path / "other" / "part-00000.jsonl", other)
    second = fit(tmp_path / "second", "ProcessRewardModel", tmp_path / "other", {"path": str(root / "run/export")})
    assert read_training_problems(second) == read_training_problems(root / "run/export") | {
        digest(s.problem) for s in other
    }


def test_score_rank_and_report_repeat_it(trained, tmp_path, capsys):
    """24 held-out problems, 8 of them trained on; labelled after scoring, so that a stage lies between."""
    root, _ = trained
    score(root / "held", tmp_path / "scored", {"prm": str(root / "run/export")})
    line = (
        "WARNING: prm was trained on 8 of the 24 problems, v/synthetic/train/24 for one; it looks better on them than on "
        "new ones"
    )
    assert line in capsys.readouterr().out
    counted = {"prm": {"problems": 8, "of": 24, "first": "v/synthetic/train/24"}}
    assert json.loads((tmp_path / "scored/manifest.json").read_text())["summary"]["trained_on"] == counted
    label(tmp_path / "scored", tmp_path / "labelled")
    assert trained_on(tmp_path / "labelled") == counted
    rank(tmp_path / "labelled", tmp_path / "ranked")
    assert line in capsys.readouterr().out
    assert json.loads((tmp_path / "ranked/manifest.json").read_text())["summary"]["trained_on"] == counted
    report(tmp_path / "ranked", output=tmp_path / "report", scores=tmp_path / "labelled", num_bootstrap=10)
    assert capsys.readouterr().out.count(line.removeprefix("WARNING: ")) == 1
    assert (tmp_path / "report/report.md").read_text().count(line.removeprefix("WARNING: ")) == 1


def test_new_problems_and_old_exports(trained, tmp_path, capsys):
    """Nothing is said of problems that were not trained on; an export without digests says that it does not know."""
    root, _ = trained
    write_records(tmp_path / "in.jsonl", list(Synthetic("test", 3, num_steps=3).solutions()))
    old = shutil.copytree(root / "run/export", tmp_path / "old")
    (old / "training_problems.txt").unlink()
    score(tmp_path / "in.jsonl", tmp_path / "scored", {"new": str(root / "run/export"), "old": str(old)})
    out = capsys.readouterr().out
    assert "WARNING" not in out
    assert out.count(f"old: {old} does not say which problems it was trained on") == 1
    assert "new: " not in out
    assert trained_on(tmp_path / "scored") == {"new": {"problems": 0, "of": 3, "first": None}, "old": None}
    rank(tmp_path / "scored", tmp_path / "ranked")
    out = capsys.readouterr().out
    assert "WARNING" not in out
    assert "trained" not in out


def test_predict_counts_too(trained, tmp_path):
    root, _ = trained
    reader = f"{{class_path: stepverify.readers.Solutions, init_args: {{path: {root}/held}}}}"
    with pytest.warns(UserWarning, match=r"prm was trained on 8 of the 24 problems"):
        main([
            "predict", "--model", "stepverify.modules.ProcessRewardModel",
            "--model.backbone.path", str(root / "run/export"), "--data.predict", reader,
            "--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu", "--trainer.logger", "false",
            "--trainer.callbacks", "stepverify.callbacks.ScoreWriter",
            "--trainer.callbacks.folder", str(tmp_path / "scores"), "--trainer.callbacks.name", "prm",
        ])  # fmt: skip
    assert trained_on(tmp_path / "scores")["prm"]["problems"] == 8


def test_manifests_that_are_not_of_stages_say_nothing(tmp_path):
    for text in ("[]", "{", '{"summary": null}', '{"summary": {}, "inputs": {}}', "\ufeff{}"):
        (tmp_path / "manifest.json").write_text(text)
        assert trained_on(tmp_path) == {}
    looped = {"summary": {"trained_on": {"a": None}}, "inputs": {"input": {"path": str(tmp_path)}}}
    (tmp_path / "manifest.json").write_text(json.dumps(looped))
    assert trained_on(tmp_path) == {"a": None}
    assert trained_on(tmp_path / "none") == {}
