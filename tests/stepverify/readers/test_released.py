"""Readers of what others released, and the figures that their data give; no real data but in the slow tests."""

import json

import pytest

from sampling.stages.label import label
from sampling.stages.rank import rank
from sampling.stages.report import report
from stepverify.answers import concluded_number, last_number
from stepverify.jsonl import read_records
from stepverify.readers import OpenAISolutions, StrictPRMBench
from stepverify.readers.openai import GENERATORS
from stepverify.records import InputError, Solution
from tests.helpers.readers import written

METHOD = {"is_correct": True, "solution": "2 * 9 = <<2*9=18>>18\n\nA: 18"}
OPENAI = {"question": " How many? ", "ground_truth": "2 * 9 = 18\nA: 18", **dict.fromkeys(GENERATORS, METHOD)}
SCORED = {
    "answer": "18",
    "is_correct": False,
    "n_steps": 2,
    "num_tokens": 9,
    "step_scores": {"prm": [0.5, 1], "qrm": [0.1, 0.2]},
}
BENCH = {"problem_id": "gsm8k_007", "question": "How many?", "ground_truth": "18", "candidates": [SCORED]}
TEXTS = {
    "problem_id": "gsm8k_007",
    "candidates": [{"answer": "18", "is_correct": False, "steps": ["2 * 9\n= 18", "So, 18."]}],
}


def bench(folder, scores=BENCH, texts=TEXTS):
    return StrictPRMBench(written(folder / "texts.jsonl", texts), written(folder / "scores.jsonl", scores))


def test_openai_solutions_as_they_are(tmp_path):
    reader = OpenAISolutions(written(tmp_path / "a.jsonl", OPENAI, OPENAI))
    assert [p.id for p in reader.problems()] == ["gsm8k/test/0", "gsm8k/test/1"]
    solutions = list(reader.solutions())
    assert [s.id for s in solutions[3:5]] == ["gsm8k/test/0#3", "gsm8k/test/1#0"]
    assert [s.generator for s in solutions[:4]] == list(GENERATORS)
    first = solutions[0]
    assert (first.problem, first.answer, first.steps, first.correct) == (
        "How many?", "18", ["2 * 9 = <<2*9=18>>18", "A: 18"], True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([], r"a.jsonl:1: expected an object, got \[\]"),
        (OPENAI | {"ground_truth": "18"}, "a.jsonl:1: key 'ground_truth': no final line 'A: …' in '18'"),
        (OPENAI | {"ground_truth": ""}, "a.jsonl:1: key 'ground_truth': no final line"),
        (OPENAI | {"6b_finetuning": None}, "a.jsonl:1: key '6b_finetuning': expected an object, got None"),
        (OPENAI | {"6b_finetuning": {"solution": "A: 1"}}, "a.jsonl:1: 6b_finetuning: missing key 'is_correct'"),
    ],
)
def test_bad_rows_of_openai_are_named(tmp_path, row, expected):
    with pytest.raises(InputError, match=expected):
        list(OpenAISolutions(written(tmp_path / "a.jsonl", row)).solutions())


def test_strictprmbench_as_it_is(tmp_path):
    reader = bench(tmp_path)
    assert [p.id for p in reader.problems()] == ["gsm8k/test/7"]
    (found,) = reader.solutions()
    assert found == Solution(
        id="gsm8k/test/7#0", problem_id="gsm8k/test/7", problem="How many?", answer="18", predicted="18", correct=False,
        steps=["2 * 9\n= 18", "So, 18."], scores={"prm": [0.5, 1], "qrm": [0.1, 0.2]},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "texts", "expected"),
    [
        (
            BENCH | {"problem_id": "gsm8k-1"},
            TEXTS,
            "scores.jsonl:1: key 'problem_id': expected gsm8k_<number> or math500_<number>, got 'gsm8k-1'",
        ),
        (
            BENCH,
            TEXTS | {"problem_id": "gsm8k_008"},
            "texts.jsonl:1: problem_id: 'gsm8k_008', but 'gsm8k_007' in .*scores.jsonl:1",
        ),
        (BENCH, TEXTS | {"candidates": []}, "texts.jsonl:1: number of candidates: 0, but 1"),
        (
            BENCH | {"candidates": [SCORED | {"step_scores": {"prm": [0.5]}}]},
            TEXTS,
            "candidate 0: key 'step_scores.prm': expected 2 values",
        ),
    ],
)
def test_bad_rows_of_strictprmbench_are_named(tmp_path, scores, texts, expected):
    with pytest.raises(InputError, match=expected):
        list(bench(tmp_path, scores, texts).solutions())


def test_files_of_different_length_do_not_belong_together(tmp_path):
    texts, scores = written(tmp_path / "t.jsonl", TEXTS, TEXTS), written(tmp_path / "s.jsonl", BENCH)
    with pytest.raises(InputError, match="differ in their numbers of problems"):
        list(StrictPRMBench(texts, scores).solutions())


def test_a_released_verdict_is_graded_anew(tmp_path):
    label(bench(tmp_path), tmp_path / "out", answer_fallback="last_number")
    assert [s.correct for s in read_records(tmp_path / "out", Solution)] == [True]
    summary = json.loads((tmp_path / "out/manifest.json").read_text())["summary"]
    assert summary["changed_verdicts"] == ["gsm8k/test/7#0"]


@pytest.mark.parametrize(
    ("text", "last", "concluded"),
    [
        ("She makes $1,018.50 a day.", "1018.50", "1018.50"),
        (r"\[ 5 - 8 = -3 \]", "-3", "-3"),
        ("It is 5-3", "3", "3"),
        (r"\frac{8}{2} = 4 \text{ days}" + "\nIt takes 4 days to save the remaining $8.", "8", "4"),
        ("a = 12\nSo 7 of 9.", "9", "9"),
        ("The rest is 10 - 4 = 6.\nSo 6 and 3 are \\(6 + 3 = 9\\) in 2 days.", "2", "9"),
        ("x = 5,000\nHe has **5000** in 2 banks.\n", "2", "5000"),
        ("3{,}200 in all", "3200", "3200"),
        ("no number", None, None),
        ("", None, None),
    ],
)
def test_numbers_in_prose(text, last, concluded):
    assert (last_number(text), concluded_number(text)) == (last, concluded)


# ── real data ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_four_accuracies_of_openai(data_folder, tmp_path):
    label(OpenAISolutions(str(data_folder / "gsm8k/example_model_solutions.jsonl.gz")), tmp_path / "out")
    summary = json.loads((tmp_path / "out/manifest.json").read_text())["summary"]
    assert {name: found["correct"] for name, found in summary["by_generator"].items()} == {
        "6b_finetuning": 286, "6b_verification": 515, "175b_finetuning": 458, "175b_verification": 742,
    }  # fmt: skip
    assert summary["changed_verdicts"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer_fallback", "changed", "expected"),
    [
        ("last_number", 465, {
            "pass@1": 86.98, "majority": 88.8, "oracle": 97.4, "qwen_prm/best_of_n": 92.61, "qwen_prm/best_of_n/min": 91.62,
            "skywork_prm/best_of_n/last": 93.6, "math_shepherd/best_of_n": 88.2, "qwen_prm/weighted_vote": 90.6,
        }),
        ("conclusion", 1326, {
            "pass@1": 92.31, "majority": 94.6, "oracle": 98.0, "qwen_prm/best_of_n": 95.8, "qwen_prm/weighted_vote": 96.4,
        }),
    ],
)  # fmt: skip
def test_seven_public_verifiers_on_the_same_samples(data_folder, tmp_path, answer_fallback, changed, expected):
    """Rough figures known before: 87.1, 88.8, 97.4; 92.6 and 91.8, 93.6, 88.2."""
    texts, scores = (
        str(data_folder / f"strictprmbench/gsm8k_bon32_{name}.jsonl.gz") for name in ("steps_text", "scores")
    )
    label(StrictPRMBench(texts, scores), tmp_path / "labels", answer_fallback=answer_fallback)
    summary = json.loads((tmp_path / "labels/manifest.json").read_text())["summary"]
    assert (summary["solutions"], len(summary["changed_verdicts"])) == (16_000, changed)
    rank(tmp_path / "labels", tmp_path / "rankings", sizes=[32], every_aggregation=True)
    report(tmp_path / "rankings", output=tmp_path / "report", num_bootstrap=100)
    found = json.loads((tmp_path / "report/summary.json").read_text())
    figures = {rule: point["mean"] for rule, point in found["accuracy"].items()}
    for rule, by_how in found["every_aggregation"].items():
        figures |= {f"{rule}/{how}": point["mean"] for how, point in by_how.items()}
    assert {rule: 100 * figures[rule] for rule in expected} == pytest.approx(expected, abs=0.1)
    assert len(found["every_aggregation"]) == 14
