"""Questions and answers for training a generative verifier: what is kept, what is left out, and why."""

import pytest

from stepverify.critique import Critique
from stepverify.jsonl import write_records
from stepverify.readers import Critiques, Solutions
from stepverify.records import InputError, Judgement, StepLabel
from stepverify.verification import Verification
from tests.helpers.labels import RIGHT, WRONG, solution

ASKED = Verification()
STEPS = Verification(target="steps")


def reader_of(tmp_path, *given, **options):
    write_records(tmp_path / "in.jsonl", given)
    return Critiques(Solutions(str(tmp_path / "in.jsonl")), **options)


def judged(sample, correct, *critiques, **known):
    return solution(sample, ["a", "b"], correct=correct, critiques={"teacher": list(critiques)}, **known)


def wrote(text, value, **known):
    return Critique(text=text, value=value, **known)


def test_critiques_are_kept_whose_verdict_is_the_label(tmp_path):
    """Of seven critiques of three solutions three agree: one that was forced was cut off, one is undecided."""
    reader = reader_of(
        tmp_path,
        judged(0, True, wrote("Good.", 0.9), wrote("Bad.", 0.4), wrote("So so.", 0.5), wrote("Fine.", 0.51)),
        judged(1, False, wrote("Wrong.\n", 0.1), wrote("Cut", 0.1, forced=True), wrote("Long", None)),
        judged(2, False), judged(3, None, wrote("Good.", 0.9)),
        verifier="teacher",
    )  # fmt: skip
    found = list(reader.solutions())
    assert [(s.id, s.problem_id, s.correct, s.steps) for s in found] == [
        ("p/0#0/0", "p/0", True, ["Good.\nVerdict: Yes"]),
        ("p/0#0/1", "p/0", True, ["Fine.\nVerdict: Yes"]),
        ("p/0#1/0", "p/0", False, ["Wrong.\nVerdict: No"]),
    ]
    assert {s.problem for s in found} == {ASKED.question("of p/0", ["a", "b"], critique=True)}
    assert {s.finish for s in found} == {"stop"}
    assert reader.left_out == {
        "critiques whose verdict is not the label": 2, "critiques that ended without a verdict": 2,
        "without a critique": 1, "without a label": 1,
    }  # fmt: skip
    assert [p.id for p in reader.problems()] == ["p/0"]


def test_the_first_critiques_of_a_question_can_be_taken_alone(tmp_path):
    reader = reader_of(
        tmp_path, judged(0, True, wrote("No.", 0.1), wrote("A.", 1.0), wrote("B.", 1.0)), verifier="teacher",
        max_critiques=1,
    )  # fmt: skip
    assert [s.steps for s in reader.solutions()] == [["A.\nVerdict: Yes"]]


def test_steps_have_questions_of_their_own(tmp_path):
    """The second step is incorrect, the third has no label; the critique of a step is that with its number."""
    labels = [RIGHT, StepLabel(num_correct=0, num_rollouts=4), None]
    one = solution(
        0, ["a", "b", "c"], step_labels=labels,
        critiques={"teacher": [wrote("A.", 0.9, step=1), wrote("B.", 0.8, step=2), wrote("B!", 0.2, step=2)]},
    )  # fmt: skip
    reader = reader_of(tmp_path, one, solution(1, []), verifier="teacher", verification=STEPS)
    assert [(s.id, s.steps, s.problem) for s in reader.solutions()] == [
        ("p/0#0/1/0", ["A.\nVerdict: Yes"], STEPS.question("of p/0", ["a"], critique=True)),
        ("p/0#0/2/0", ["B!\nVerdict: No"], STEPS.question("of p/0", ["a", "b"], critique=True)),
    ]
    assert reader.left_out == {"critiques whose verdict is not the label": 1, "without a label": 1}
    assert reader.left_out.first["without a label"] == "p/0#0/3"


def test_verdicts_without_critiques_need_labels_alone(tmp_path):
    reader = reader_of(tmp_path, solution(0, ["a", "b"], step_labels=[RIGHT, WRONG]), verification=STEPS)
    assert [(s.steps, s.problem) for s in reader.solutions()] == [
        (["Verdict: Yes"], STEPS.question("of p/0", ["a"], critique=False)),
        (["Verdict: No"], STEPS.question("of p/0", ["a", "b"], critique=False)),
    ]


def test_a_judges_answers_are_critiques(tmp_path):
    """Of the correct solution one answer finds no error; of the incorrect one, one names the labels' step, one another."""

    def judgement(sample, labelled, **said):
        return Judgement(
            id=f"p/0#{sample}", labelled=labelled, seed=0, texts=[*said], verdicts=[*said.values()],
            finish=["stop"] * len(said), tokens=1,
        )  # fmt: skip

    write_records(tmp_path / "judge.jsonl", [judgement(0, 0, fine=0, wrong=2), judgement(1, 2, two=2, one=1, hm=None)])
    given = [solution(i, ["a", "b"], correct=i == 0) for i in range(3)]
    reader = reader_of(tmp_path, *given, judgements=str(tmp_path / "judge.jsonl"))
    assert [(s.id, s.steps) for s in reader.solutions()] == [
        ("p/0#0/0", ["fine\nVerdict: Yes"]), ("p/0#1/0", ["two\nVerdict: No"]),
    ]  # fmt: skip
    assert reader.left_out == {
        "critiques whose verdict is not the label": 1, "critiques that name another step than the labels": 1,
        "critiques that ended without a verdict": 1, "without a critique": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verifier": "v", "judgements": "j"}, "judgements: j: expected none beside verifier 'v'"),
        ({"judgements": "j", "verification": STEPS}, "are of whole solutions; set verification.target: solutions"),
        ({"max_critiques": 0}, "max_critiques: expected >= 1 or null, got 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        Critiques(Solutions(str(tmp_path)), **options)
