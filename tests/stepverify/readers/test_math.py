"""Problems and solutions of MATH."""

import sys
from types import SimpleNamespace

import pytest

from sampling.runtime.inputs import read_problems
from stepverify.answers import boxed_answer
from stepverify.jsonl import write_records
from stepverify.readers import MATH, Problems
from stepverify.records import Problem
from tests.helpers.readers import said, written

# ── MATH ──────────────────────────────────────────────────────────────────────────────────────────


MATH_ROW = {
    "problem": " What is $1 + 1$?\n", "solution": "First,\n\n1 + 1 = 2.\nSo $\\boxed{2}$.", "level": "Level 5",
    "type": "Algebra", "unique_id": "train/algebra/24.json",
}  # fmt: skip


def test_math_as_it_is(tmp_path):
    """Hendrycks' keys, and those of PRM800K's split; without a unique_id the row says which one it is."""
    newer = {"problem": "?", "solution": "s", "answer": "\\frac{1}{2}", "level": 2, "subject": "Geometry"}
    reader = MATH(written(tmp_path / "m.jsonl", MATH_ROW, newer), split="test")
    assert list(reader.problems()) == [
        Problem(
            id="math/train/algebra/24", problem="What is $1 + 1$?", answer="2",
            steps=["First,", "1 + 1 = 2.", "So $\\boxed{2}$."], meta={"level": 5, "subject": "Algebra"},
        ),
        Problem(id="math/test/1", problem="?", answer="\\frac{1}{2}", steps=["s"], meta={"level": 2, "subject": "Geometry"}),
    ]  # fmt: skip
    assert [p.id for p in MATH(reader.path, start=1).problems()] == ["math/train/1"]
    assert [s.id for s in MATH(reader.path, limit=1).solutions()] == ["math/train/algebra/24#0"]


def test_problems_of_math_that_are_left_out(tmp_path):
    """One boxes nothing, one is excluded; Level ? is no level."""
    rows = [
        MATH_ROW | {"solution": "It is $\\boxed{}$."},
        MATH_ROW | {"level": "Level ?"},
        MATH_ROW | {"problem": "1?"},
    ]
    reader = MATH(written(tmp_path / "m.jsonl", *rows))
    assert [p.meta for p in reader.problems()] == [{"subject": "Algebra"}, {"level": 5, "subject": "Algebra"}]
    assert reader.left_out == {"without an answer": 1}
    write_records(tmp_path / "q.jsonl", [Problem(id="q", problem="1 ?")])
    reader = MATH(reader.path, exclude=[Problems(str(tmp_path / "q.jsonl"))])
    assert [p.meta for p in reader.problems()] == [{"subject": "Algebra"}]
    assert str(reader.left_out) == (
        f"1 without an answer ({tmp_path}/m.jsonl:1), 1 of excluded problems ({tmp_path}/m.jsonl:3)"
    )
    assert reader.counted() == {"left_out": {
        "without an answer": {"count": 1, "first": f"{tmp_path}/m.jsonl:1"},
        "of excluded problems": {"count": 1, "first": f"{tmp_path}/m.jsonl:3"},
    }}  # fmt: skip
    assert len(read_problems(reader)) == 1


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"level": "hard"}, ":1: key 'level': expected 'Level 1' to 'Level 5' or a number, got 'hard'"),
        ({"solution": None}, ":1: key 'solution': expected a string, got None"),
        ({"unique_id": 7}, ":1: key 'unique_id': expected a string, got 7"),
        ({"answer": 2}, ":1: key 'answer': expected a string, got 2"),
    ],
)
def test_bad_rows_of_math_are_named(tmp_path, changed, expected):
    reader = MATH(written(tmp_path / "m.jsonl", MATH_ROW | changed))
    assert said(reader, "problems") == f"{tmp_path}/m.jsonl{expected}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} and \fbox{2.}", "2"),
        (r"\boxed{7}, so the answer is correct.", "7"),
        (r"\boxed{8}, then \boxed{ and \boxed{}", "8"),
        (r"\boxed 9", "9"),
        (r"\boxedfoo{1}. The answer is 3.", None),
        ("", None),
    ],
)
def test_the_last_box(text, expected):
    assert boxed_answer(text) == expected


def test_rows_of_the_hub(monkeypatch):
    """The arguments that ``datasets`` gets, and what a row is called in errors."""
    asked = []

    def load_dataset(path, name, *, split, revision):
        assert revision is None
        asked.append((path, name, split))
        return [MATH_ROW, MATH_ROW | {"level": "x"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert said(MATH("me/math", split="test", name="algebra"), "problems").startswith("me/math[test][1]: key 'level'")
    assert asked == [("me/math", "algebra", "test")]
    assert said(MATH("./none"), "problems") == "./none: no such file"


# ── real data ─────────────────────────────────────────────────────────────────────────────────────


def test_math_whole(data_folder):
    """7,500 problems, two of which box nothing; of MATH-500 each box is the given answer."""
    reader = MATH(str(data_folder / "math/math_train.jsonl.gz"))
    assert sum(1 for _ in reader.problems()) == 7498
    assert reader.left_out == {"without an answer": 2}
    problems = list(MATH(str(data_folder / "math/math500_prm800k_test.jsonl.gz"), split="test").problems())
    assert len(problems) == 500
    assert all(boxed_answer("\n".join(p.steps)) == p.answer for p in problems)
