"""Labels that others collected, and those of probed answers: every disagreement is listed, with a reason."""

import gzip
import json
import os
from pathlib import Path

import pytest

from stepverify.answers import Grader, extract_answer
from stepverify.answers.compare import settle

DATA = os.environ.get("STEPVERIFY_DATA")
pytestmark = pytest.mark.skipif(DATA is None, reason="STEPVERIFY_DATA does not name the folder of real data")
LISTED = json.loads((Path(__file__).parent / "grader_disagreements.json").read_text(encoding="utf-8"))


def read(name):
    with gzip.open(Path(str(DATA)) / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def disagreements(rows, predicted):
    with Grader(num_workers=2, time_limit=60) as grader:
        verdicts = grader.grade((row["gold"], answer) for row, answer in zip(rows, predicted, strict=True))
    return [row for row, verdict in zip(rows, verdicts, strict=True) if bool(verdict) != row["expected"]]


@pytest.mark.parametrize(
    ("name", "aim"),
    [("processbench_boxed_answer_pairs", 0.97), ("answer_equivalence_cases", 0.95), ("answer_pairs_probed", 0.97)],
)
def test_pairs(name, aim):
    rows = read(f"grader_cases/{name}.jsonl.gz")
    found = disagreements(rows, [row["pred"] for row in rows])
    listed = LISTED[name]
    assert all(entry["reason"] for entry in listed)
    assert [[row[key] for key in ("gold", "pred", "expected")] for row in found] == [
        [entry[key] for key in ("gold", "pred", "expected")] for entry in listed
    ]
    assert 1 - len(found) / len(rows) >= aim


def test_texts():
    rows = read("grader_cases/answer_texts_probed.jsonl.gz")
    assert disagreements(rows, [extract_answer(row["text"]) for row in rows]) == []


def test_agrees_with_openai_on_its_released_solutions():
    wrong = []
    for row in read("gsm8k/example_model_solutions.jsonl.gz"):
        gold = extract_answer(row["ground_truth"])
        for name in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            solution = row[name]["solution"]
            # One of 5,276 is no plain number and stays unsettled: 10+John's age, incorrect.
            if bool(settle(gold, extract_answer(solution))) != row[name]["is_correct"]:
                wrong.append(solution)
    assert wrong == []


def test_finds_the_answers_of_math_solutions():
    rows = read("math/math500_prm800k_test.jsonl.gz")
    assert [row["answer"] for row in rows if settle(row["answer"], extract_answer(row["solution"])) is not True] == []


def test_finds_the_answers_of_prm800k():
    """252 solutions state one below ``# Answer``; four are sentences of words alone, which are no answers."""
    texts = ["\n".join(row["steps"]) for row in read("prm800k/train_val2pct_decoded_dedup.jsonl.gz")]
    written = [(text, text.rpartition("# Answer")[2].strip()) for text in texts if "# Answer" in text]
    assert len(written) == 252
    other = [answer for text, answer in written if settle(answer, extract_answer(text)) is not True]
    assert len(other) == 4
    assert all(answer.startswith("Dana") for answer in other)
    joined = [" ".join(text.split()) for text, _ in written]
    assert [extract_answer(text) for text in joined] == [extract_answer(text) for text, _ in written]
