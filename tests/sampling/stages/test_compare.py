"""Step labels of several sources: agreement, first errors, disputes and costs."""

import json

import pytest

from sampling.__main__ import main
from sampling.stages.compare import compare
from stepverify.data.targets import StepTargets
from stepverify.jsonl import MANIFEST, read_json_lines, write_records
from stepverify.records import InputError, Solution, StepLabel


def write(folder, name, texts):
    """``{"p#0": "+-?+"}``: correct, incorrect, unknown; a digit k is k correct ones of 8 completions."""

    def label(c):
        return {"+": StepLabel(rating=1), "-": StepLabel(rating=-1), "?": None}.get(c) if c in "+-?" else counted(c)

    def counted(c):
        return StepLabel(num_correct=int(c), num_rollouts=8)

    write_records(folder / name / "part-00000.jsonl", [
        Solution(id=key, problem_id=key.partition("#")[0], problem="?", answer="1",
                 steps=[f"step {i}" for i in range(len(text))], step_labels=[label(c) for c in text])
        for key, text in texts.items()
    ])  # fmt: skip
    return folder / name


@pytest.fixture
def folders(tmp_path):
    """Three solutions of two problems; the last step of each is left out unless asked for.

    people     p#0  + + - -    p#1  + + +    q#0  + ? - -
    rollouts   p#0  8 0 1 -    p#1  3 1 +    q#0  2 1 0 -    r#0 is in no other
    """
    people = write(tmp_path, "people", {"p#0": "++--", "p#1": "+++", "q#0": "+?--"})
    rollouts = write(tmp_path, "rollouts", {"p#0": "801-", "p#1": "31+", "q#0": "210-", "r#0": "8+"})
    return {"people": people, "rollouts": rollouts}


def run(tmp_path, labels, **options):
    compare(labels, options.pop("reference", "people"), tmp_path / "out", **options)
    return json.loads((tmp_path / "out" / "summary.json").read_text())["labels"]


def test_steps_are_counted_one_by_one(tmp_path, folders):
    """Known in both, last ones left out: p#0 three, p#1 two, q#0 two (the second has no rating): 7.

    Agreed on: p#0 the first; p#1 both; q#0 the first and the third: 5 of 7. p#0's second is correct and labelled incorrect,
    its third incorrect and labelled correct. Correct by people are 2 + 2 + 1 = 5 of 7, by rollouts 2 + 2 + 1 = 5 of 7. By chance
    25/49 + 4/49 = 29/49 would agree: kappa (35 - 29) / (49 - 29) = 0.3.
    """
    found = run(tmp_path, folders)["rollouts"]
    assert found["num_steps"] == 7
    assert found["agreement"]["mean"] == pytest.approx(5 / 7)
    assert (found["both_correct"], found["both_incorrect"], found["unlucky"], found["lenient"]) == (4, 1, 1, 1)
    assert found["correct_in_reference"] == pytest.approx(5 / 7)
    assert found["kappa"] == pytest.approx(0.3)


def test_the_interval_is_over_problems(tmp_path, folders):
    """Resamples of p (3 of 5 agree) and q (2 of 2): from p twice, 0.6, to q twice, 1."""
    agreement = run(tmp_path, folders)["rollouts"]["agreement"]
    assert (agreement["low"], agreement["high"]) == (0.6, 1.0)


def test_last_steps_count_when_asked_for(tmp_path, folders):
    """Three more, on all of which both agree: 8 of 10."""
    found = run(tmp_path, folders, final_step=True)["rollouts"]
    assert (found["num_steps"], found["agreement"]["mean"]) == (10, pytest.approx(0.8))


def test_first_errors_are_told_by_place(tmp_path, folders):
    """p#0: the third by people, the second by rollouts: earlier. p#1: none in both. q#0: unknown to people."""
    found = run(tmp_path, folders)["rollouts"]
    assert (found["num_first_errors"], found["earlier"], found["later"]) == (2, 1, 0)
    assert found["first_error"]["mean"] == 0.5


def test_no_error_is_later_than_any(tmp_path):
    labels = {"people": write(tmp_path, "people", {"p#0": "+-+"}), "other": write(tmp_path, "other", {"p#0": "+++"})}
    found = run(tmp_path, labels)["other"]
    assert (found["later"], found["first_error"]["mean"]) == (1, 0.0)
    assert run(tmp_path, labels, reference="other")["people"]["earlier"] == 1


def test_labels_agree_with_themselves_and_kappa_needs_two_kinds(tmp_path):
    labels = {name: write(tmp_path, name, {"p#0": "++-"}) for name in ("one", "two")}
    found = run(tmp_path, labels, reference="one")["two"]
    assert (found["agreement"]["mean"], found["kappa"]) == (1.0, None)  # both correct: agreement by chance is certain
    assert run(tmp_path, labels, reference="one", final_step=True)["two"]["kappa"] == 1.0


def test_targets_say_what_a_label_means(tmp_path):
    """3 of 8 is correct by the hard rule, and incorrect where more than half must be."""
    labels = {"people": write(tmp_path, "people", {"p#0": "-+"}), "other": write(tmp_path, "other", {"p#0": "3+"})}
    assert run(tmp_path, labels)["other"]["lenient"] == 1
    assert run(tmp_path, labels, targets=StepTargets(monte_carlo="threshold"))["other"]["both_incorrect"] == 1


def test_disputes_are_written_down_with_both_labels(tmp_path, folders):
    run(tmp_path, folders)
    rows = [row for _, row in read_json_lines(tmp_path / "out" / "disputes.jsonl")]
    assert [(r["id"], r["step"], r["kind"], r["reference"], r["label"]) for r in rows] == [
        ("p#0", 1, "unlucky", {"rating": 1}, {"num_correct": 0, "num_rollouts": 8}),
        ("p#0", 2, "lenient", {"rating": -1}, {"num_correct": 1, "num_rollouts": 8}),
    ]
    assert rows[0]["steps"] == ["step 0", "step 1"]


def test_costs_stand_beside_and_the_command_prints_the_tables(tmp_path, folders, capsys):
    summary = {"rollouts": 1234, "rollout_tokens": 56789, "seconds": 7.5}
    manifest = {"stage": "label", "config": {}, "inputs": {}, "finished": True, "summary": summary}
    (folders["rollouts"] / MANIFEST).write_text(json.dumps(manifest))
    sheets = {"class_path": "stepverify.readers.Solutions", "init_args": {"path": str(folders["people"])}}
    labels = json.dumps({"people": sheets, "rollouts": str(folders["rollouts"])})
    main(["compare", f"--labels={labels}", "--reference", "people", "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "71.4 %" in printed
    assert "1,234  56,789" in printed
    assert str(tmp_path / "out" / "report.md") in printed


def test_solutions_that_are_missing_are_counted(tmp_path, folders):
    write(tmp_path, "rollouts", {"p#0": "801-"})
    assert run(tmp_path, folders)["rollouts"]["solutions_missing"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reference": "nobody"}, "reference: expected one of at least two labels (people, rollouts), got 'nobody'"),
        ({"targets": StepTargets(monte_carlo="soft")}, "only correct and incorrect can be compared"),
        ({"targets": StepTargets(neutral="class")}, "only correct and incorrect can be compared"),
        ({"num_bootstrap": 0}, "num_bootstrap: expected 1 or more, got 0"),
    ],
)
def test_bad_choices_are_named(tmp_path, folders, options, said):
    with pytest.raises(InputError) as raised:
        run(tmp_path, folders, **options)
    assert said in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"p#0": "8"}, "rollouts: solution p#0 has different steps in the reference"),
        ({"z#0": "8+"}, "rollouts: none of its labelled steps has a label in the reference"),
    ],
)
def test_labels_that_do_not_belong_together_are_refused(tmp_path, folders, texts, said):
    write(tmp_path, "rollouts", texts)
    with pytest.raises(InputError) as raised:
        run(tmp_path, folders)
    assert said in str(raised.value)
    assert not (tmp_path / "out").exists()
