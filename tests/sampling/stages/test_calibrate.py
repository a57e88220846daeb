"""The calibrate stage, and what rank, score and search make of its file."""

import json
import random
from pathlib import Path

import pytest

from sampling.__main__ import main
from sampling.search import BeamSearch
from sampling.selection.calibration import Calibrations
from sampling.selection.calibration_files import read_calibrations
from sampling.stages.calibrate import calibrate
from sampling.stages.rank import rank
from sampling.stages.report import report
from sampling.stages.score import score
from stepverify.jsonl import read_records, write_records
from stepverify.records import InputError, Ranking, Solution, StepLabel
from tests.helpers.browsing import read_page
from tests.helpers.searches import Valued, searched

ROOT = Path(__file__).parents[3]
YAML = "lit_configs/gsm8k/recorded/07_calibrate.yaml"


def worth(steps):
    """The value of the scorer: 0.9 after a step ``good``, 0.4 after others."""
    return 0.9 if steps[-1] == "good" else 0.4


def solutions(folder, problems, num_samples=8, labelled=False):
    """A solution with both steps good is correct in 3 of 4 cases, one with none in 1 of 4, others in half of them."""
    rng, rows = random.Random(0), []
    for number in problems:
        for i in range(num_samples):
            steps = [rng.choice(["good", "bad"]) for _ in range(rng.choice([1, 2]))]
            correct = rng.random() < 0.25 + 0.5 * steps.count("good") / len(steps)
            labels = [StepLabel(rating=1 if rng.random() < 0.25 + 0.5 * (s == "good") else -1) for s in steps]
            rows.append(
                Solution(
                    id=f"p{number}#{i}", problem_id=f"p{number}", problem=f"{number}?", answer="1", steps=steps,
                    predicted="1" if correct else str(rng.choice([2, 3])), correct=correct, finish="stop",
                    step_labels=labels if labelled else None,
                )
            )  # fmt: skip
    write_records(folder / "part-00000.jsonl", rows)
    return folder


def scored(folder, problems, of=worth, **known):
    given = solutions(folder.with_name(f"{folder.name}_given"), problems, **known)
    score(given, folder, {"prm": Valued(of)})
    return folder


def made(path) -> Calibrations:
    return read_calibrations(path)


def refusal(call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    (line,) = str(caught.value).splitlines()
    return line


def test_scores_are_calibrated_and_ranked_with_the_map(tmp_path, capsys):
    """The map's identity is the scorer's; rank fixes the aggregation, keeps every best-of-N, and counts problems that both have."""
    held_out, test = scored(tmp_path / "held_out", range(40)), scored(tmp_path / "test", range(35, 60))
    file = tmp_path / "calibration.json"
    calibrate(held_out, file, aggregation={"prm": "min"}, num_folds=4)
    said = capsys.readouterr().out
    assert "40 problems; every figure is cross-fitted over 4 folds of them; accuracies at N = 8" in said
    assert all(f"\n  {how}" in said for how in ("prod", "min *", "last", "mean", "max", "learned"))
    assert "no manifest" not in said
    found = made(file)
    assert (found.method, found.num_folds, found.num_samples, len(found.problems)) == ("platt", 4, 8, 40)
    assert found.verifiers["prm"].identity == {"scorer": "valued"}
    low, high = found.verifiers["prm"].weights([[0.4], [0.9, 0.9]], "min")
    assert low < 0.45, "0.4 stands for less than half"
    assert high > 0.6, "and 0.9 for 3 / 4"
    before = file.read_text()
    calibrate(held_out, file, aggregation={"prm": "min"}, num_folds=4)
    assert file.read_text() == before
    capsys.readouterr()
    rank(test, tmp_path / "plain", aggregation={"prm": "min"})
    rank(test, tmp_path / "mapped", calibration=file)
    said = capsys.readouterr().out
    assert "WARNING: the calibration was fitted on 5 of the 25 problems, p35 for one" in said
    assert "aggregation: prm min (calibration)" in said
    plain, mapped = (list(read_records(tmp_path / name, Ranking)) for name in ("plain", "mapped"))
    assert [r.curves["prm/best_of_n"] for r in plain] == [r.curves["prm/best_of_n"] for r in mapped]
    assert [r.curves["prm/weighted_vote"] for r in plain] != [r.curves["prm/weighted_vote"] for r in mapped]
    report(tmp_path / "mapped", scores=test, output=tmp_path / "report", num_bootstrap=10)
    shown = (tmp_path / "report/report.md").read_text()
    assert "the calibration was fitted on 5 of the 25 problems" in shown
    assert "| prm | min | the calibration |" in shown
    assert "min (mean)" not in shown
    assert "was made with inputs.calibration" in refusal(rank, test, tmp_path / "mapped")


def test_labels_of_steps_are_enough_for_maps_of_steps(tmp_path, capsys):
    """The maps are those of the same solutions with grades; what needs grades is left out, or refused."""
    graded = scored(tmp_path / "graded", range(40), labelled=True)
    plain = tmp_path / "plain.jsonl"
    rows = [*read_records(graded, Solution)]
    for row in rows:
        row.correct = row.predicted = row.answer = None
    write_records(plain, rows)
    calibrate(graded, tmp_path / "graded.json", target="steps")
    capsys.readouterr()
    calibrate(plain, tmp_path / "plain.json")
    said = capsys.readouterr().out
    assert "320 of 320 solutions are not graded, so no vote is measured, and no combination of values learned" in said
    assert f"prm: steps of {sum(len(row.steps) for row in rows):,} labels: ECE " in said
    wanted, found = made(tmp_path / "graded.json"), made(tmp_path / "plain.json")
    assert (found.num_samples, found.majority) == (0, None)
    one, other = found.verifiers["prm"], wanted.verifiers["prm"]
    assert (one.maps, one.step_quality, one.num_labels) == (other.maps, other.step_quality, other.num_labels)
    assert (one.target, one.learned, one.measured) == ("steps", None, {})
    rank(graded, tmp_path / "ranked", calibration=tmp_path / "plain.json")
    for asked in ({"target": "solutions"}, {"size": 4}):
        line = refusal(calibrate, plain, tmp_path / "other.json", **asked)
        assert line.startswith(f"{plain}:1: solution p0#0 is not graded ('correct' is missing), one of 320; run ")
    assert not (tmp_path / "other.json").exists()


def test_a_report_maps_scores_without_scoring_again(tmp_path, capsys):
    """A map of 0.4 and 0.9 to the shares of correct steps: its report is that of scores that `score` has mapped."""
    held_out = scored(tmp_path / "held_out", range(40), labelled=True)
    test = scored(tmp_path / "test", range(38, 60), labelled=True)
    file = tmp_path / "calibration.json"
    calibrate(held_out, file, target="steps")
    score(tmp_path / "test_given", tmp_path / "mapped", {"prm": Valued(worth)}, calibration=file)
    told = {"num_bootstrap": 10, "browse": 5}
    report(scores=test, calibration=file, output=tmp_path / "a", **told)
    said = capsys.readouterr().out
    assert "the calibration was fitted on 2 of the 22 problems, p38 for one" in said
    report(scores=tmp_path / "mapped", output=tmp_path / "b", **told)
    report(scores=test, output=tmp_path / "c", **told)
    a, b, c = (json.loads((tmp_path / name / "summary.json").read_text()) for name in "abc")
    for key in ("steps", "solutions", "first_errors"):
        assert a[key] == b[key], key
    assert a["steps"] != c["steps"]
    assert (a["config"]["calibration"], "calibration" in c["config"]) == (str(file), False)
    low = round(made(file).verifiers["prm"].map_values([0.4])[0], 4)
    assert str(low) in json.dumps(read_page(tmp_path / "a/browse.html")[1])
    line = refusal(report, tmp_path / "x", calibration=file, output=tmp_path / "d")
    assert line == f"calibration: {file}: expected scores whose values it maps"
    calibrate(held_out, tmp_path / "of_products.json", target="solutions")
    line = refusal(report, scores=test, calibration=tmp_path / "of_products.json", output=tmp_path / "d")
    assert "prm: maps scores by prod, which need all values of a solution" in line
    assert not (tmp_path / "d").exists()


def test_a_learned_aggregation_ranks(tmp_path, capsys):
    held_out, test = scored(tmp_path / "held_out", range(40)), scored(tmp_path / "test", range(40, 50))
    file = tmp_path / "calibration.json"
    calibrate(held_out, file, aggregation={"prm": "mean"})
    rank(test, tmp_path / "out", calibration=file, aggregation={"prm": "learned"}, every_aggregation=True)
    rankings = list(read_records(tmp_path / "out", Ranking))
    assert all(r.curves["prm/best_of_n"] == r.curves["prm/best_of_n/learned"] for r in rankings)
    assert any(r.curves["prm/best_of_n"] != r.curves["prm/best_of_n/last"] for r in rankings)
    assert "prm learned (configured)" in capsys.readouterr().out
    report(tmp_path / "out", scores=test, output=tmp_path / "report", num_bootstrap=10)
    assert "| prm | learned | the configuration |" in (tmp_path / "report/report.md").read_text()
    assert "aggregation.prm: learned: expected a calibration that learned one" in refusal(
        rank, test, tmp_path / "other", aggregation={"prm": "learned"}
    )
    assert "aggregation.prm: last: the calibration maps scores by mean; give none" in refusal(
        rank, test, tmp_path / "other", calibration=file, aggregation={"prm": "last"}
    )
    assert refusal(score, test, tmp_path / "other", {"prm": Valued(worth)}, calibration=file) == (
        f"calibration: {file}: prm: maps scores by mean, which need all values of a solution; give it to `sampling rank`, "
        "or calibrate with target: steps, or aggregation: last, min or max"
    )


def test_maps_of_steps_are_applied_by_score_search_and_rank_alike(tmp_path, capsys):
    """Step labels are there, so that maps are of steps. Scored with the map, or ranked with it: the same curves."""
    held_out = scored(tmp_path / "held_out", range(40), labelled=True)
    file = tmp_path / "calibration.json"
    calibrate(held_out, file, method="isotonic")
    assert "prm: steps: ECE " in capsys.readouterr().out
    found = made(file).verifiers["prm"]
    assert (found.target, found.aggregation) == ("steps", None)
    low, high = found.map_values([0.4, 0.9])
    assert (low, high) == (pytest.approx(0.25, abs=0.07), pytest.approx(0.75, abs=0.07))
    test = scored(tmp_path / "test", range(40, 50))
    given = tmp_path / "test_given"
    score(given, tmp_path / "mapped", {"prm": Valued(worth)}, calibration=file)
    for solution in read_records(tmp_path / "mapped", Solution):
        assert solution.scores["prm"] == [high if step == "good" else low for step in solution.steps]
    rank(test, tmp_path / "by_rank", calibration=file)
    rank(tmp_path / "mapped", tmp_path / "by_score")
    by_rank, by_score = (list(read_records(tmp_path / name, Ranking)) for name in ("by_rank", "by_score"))
    assert by_rank == by_score
    assert "for another verifier 'prm'" in refusal(rank, tmp_path / "mapped", tmp_path / "twice", calibration=file)
    _, plain = searched(tmp_path / "plain", BeamSearch(num_beams=2, width=2), scorer=Valued(worth))
    _, guided = searched(tmp_path / "guided", BeamSearch(num_beams=2, width=2), scorer=Valued(worth), calibration=file)
    assert {v for group in plain.values() for s in group for v in s.scores["prm"]} == {0.4}
    assert {v for group in guided.values() for s in group for v in s.scores["prm"]} == {low}


def test_another_verifier_is_refused(tmp_path):
    held_out, file = scored(tmp_path / "held_out", range(20)), tmp_path / "calibration.json"
    calibrate(held_out, file, aggregation={"prm": "last"})
    other = tmp_path / "other"
    score(tmp_path / "held_out_given", other, {"prm": Valued(worth, name="retrained"), "extra": Valued(worth)})
    for call in (
        lambda: rank(other, tmp_path / "out", calibration=file),
        lambda: score(other, tmp_path / "out", {"prm": Valued(worth, name="retrained")}, calibration=file),
    ):
        assert refusal(call) == (
            f"calibration: {file}: was fitted for another verifier 'prm', with scorer = 'valued', now it is 'retrained'; "
            "run `sampling calibrate` on scores of this one"
        )
    assert refusal(score, other, tmp_path / "out", {"extra": Valued(worth)}, calibration=file) == (
        f"calibration: {file}: is of prm, the scores of extra"
    )
    (tmp_path / "policy.json").write_text('{"version": 2}')
    assert "not a calibration of version 1 (key 'version': 2)" in refusal(
        rank, held_out, tmp_path / "out", calibration=tmp_path / "policy.json"
    )
    assert "is there, and is not a calibration" in refusal(calibrate, held_out, tmp_path / "policy.json")
    assert "final step's value" in refusal(
        rank, held_out, tmp_path / "out", calibration=file, without_final_step=["prm"]
    )
    assert not (tmp_path / "out").exists()


def test_a_verifier_without_a_map_is_named_and_the_others_are_fitted(tmp_path, capsys):
    given = scored(tmp_path / "given", range(40))
    score(given, tmp_path / "both", {"reversed": Valued(lambda steps: 1.3 - worth(steps))})
    file = tmp_path / "calibration.json"
    calibrate(tmp_path / "both", file)
    assert [*made(file).verifiers] == ["prm"]
    (warning,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("warning"))
    assert warning.startswith("warning: reversed: the fitted gain of logits is -")
    assert warning.endswith(f"{file} has no map of reversed, whose values stay as they are")


def test_what_cannot_be_calibrated_is_one_line(tmp_path):
    given, file = scored(tmp_path / "few", range(3)), tmp_path / "calibration.json"
    line = refusal(calibrate, given, file)
    assert line == f"num_folds: 5: expected 2 to 3, the number of problems in {given}"
    assert "size: 9: expected 1 to 8" in refusal(calibrate, given, file, num_folds=2, size=9)
    assert "per_step: no map is of steps" in refusal(calibrate, given, file, num_folds=2, per_step=True)
    assert "target.prm: steps: its values are not of labelled steps" in refusal(
        calibrate, given, file, num_folds=2, target="steps"
    )
    assert "aggregation.orm: expected one of prm" in refusal(
        calibrate, given, file, num_folds=2, aggregation={"orm": "last"}
    )
    assert "run `sampling score` first" in refusal(calibrate, tmp_path / "few_given", file, num_folds=2)
    equal = scored(tmp_path / "equal", range(6), of=lambda steps: 0.5)
    assert "prm: all 48 values are 0.5; a map needs different ones" in refusal(
        calibrate, equal, file, aggregation={"prm": "last"}
    )
    reversed_ = scored(tmp_path / "reversed", range(40), of=lambda steps: 1.3 - worth(steps))
    assert "higher values are not more often correct" in refusal(calibrate, reversed_, file)
    rows = [s for s in read_records(given, Solution) if s.correct]
    write_records(tmp_path / "correct/part-00000.jsonl", rows)
    assert refusal(calibrate, tmp_path / "correct", file, num_folds=2).endswith(
        f"all {len(rows)} solutions are correct; a map needs both kinds"
    )
    assert not file.exists()


@pytest.mark.slow
def test_recorded_scores(tmp_path, monkeypatch, capsys):
    """The weighted vote of the recorded GSM8K scores gains 4.0 points, as RESULTS.md has it; its calibration error falls."""
    monkeypatch.chdir(ROOT)
    main(["calibrate", "--config", YAML, "--set", f"runs={tmp_path}"])
    found = made(tmp_path / "calibration.json")
    assert 100 * found.majority == pytest.approx(33.1, abs=0.05)
    one = found.verifiers["orm"].measured["last"]
    assert [round(100 * share, 1) for share in (one.before.weighted_vote, one.after.weighted_vote)] == [35.0, 39.0]
    assert 100 * one.gain[0] == pytest.approx(4.0, abs=0.05)
    assert one.gain[1] > 0
    assert [round(one.before.ece, 3), round(one.after.ece, 3)] == [0.309, 0.013]
    assert found.verifiers["orm"].identity is None
    assert "orm: no manifest says which verifier gave these scores" in capsys.readouterr().out
    assert json.loads((tmp_path / "calibration.json").read_text())["verifiers"]["orm"]["maps"][0]["method"] == "platt"
