"""Flat rated solutions of PRM800K."""

import pytest

from stepverify.answers import Extracted, Grader
from stepverify.data.targets import StepTargets
from stepverify.jsonl import read_json_lines, write_records
from stepverify.readers import MATH, Problems, ProcessBench, RatedSolutions, Solutions, Worked
from stepverify.records import Problem
from tests.helpers.readers import count, read, said, written

# ── flat rated solutions ──────────────────────────────────────────────────────────────────────────


FLAT = {"problem_id": "train/algebra/7.json", "steps": ["a", "b", "c"], "ratings": [1, 0, -1], "unlabelled_tail": None}


def flat(folder, *rows, **options):
    write_records(
        folder / "q.jsonl", [Problem(id="math/train/algebra/7", problem="1 + 1 ?", answer="2", meta={"level": 3})]
    )
    return RatedSolutions(written(folder / "r.jsonl", *rows), Problems(str(folder / "q.jsonl")), **options)


def test_rated_solutions_are_joined_to_their_problems(tmp_path):
    reader = flat(tmp_path, FLAT, FLAT | {"problem_id": "math/train/algebra/7", "ratings": [1, -1, None]},
                  FLAT | {"ratings": [None, 1, 1], "unlabelled_tail": "d"})  # fmt: skip
    assert read(reader) == [(["a", "b", "c"], [1, 0, -1]), (["a", "b"], [1, -1]), (["a", "b", "c"], [None, 1, 1])]
    assert reader.noted == {
        "steps after the end of their path": 1, "steps without a rating": 1, "tails without a rating": 1,
    }  # fmt: skip
    first = next(reader.solutions())
    assert (first.id, first.problem, first.answer, first.meta) == (
        "math/train/algebra/7#0",
        "1 + 1 ?",
        "2",
        {"level": 3},
    )


def test_neutral_is_for_the_targets_to_decide(tmp_path):
    (found,) = flat(tmp_path, FLAT).solutions()
    assert StepTargets().of(found) == [1, 1, 0]
    assert StepTargets(neutral="ignore").of(found) == [1, None, 0]


def test_problems_without_a_text(tmp_path):
    rows = [FLAT, FLAT | {"problem_id": "test/algebra/8.json"}, FLAT | {"problem_id": "test/algebra/9.json"}]
    reader = flat(tmp_path, *rows)
    assert len(list(reader.solutions())) == 1
    assert reader.left_out == {"of problems without a text": 2}
    assert reader.left_out.first == {"of problems without a text": f"{tmp_path}/r.jsonl:2"}
    assert said(flat(tmp_path, *rows, strict=True)) == (
        f"{tmp_path}/r.jsonl:2: key 'problem_id': 'test/algebra/8.json' is none of the 1 problems of Problems"
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"ratings": [1, 1]}, ":1: key 'ratings': expected 3 values, one per step, got 2"),
        ({"ratings": [1, 1, "1"]}, ":1: step 2: key 'rating': expected -1, 0, 1 or null, got '1'"),
        ({"ratings": None}, ":1: key 'ratings': expected a list, got None"),
        ({"steps": ["a", "b", 3]}, ":1: key 'steps[2]': expected a string, got 3"),
        ({"problem_id": 7}, ":1: key 'problem_id': expected a string, got 7"),
    ],
)
def test_bad_ratings_are_named(tmp_path, changed, expected):
    assert said(flat(tmp_path, FLAT | changed)) == f"{tmp_path}/r.jsonl{expected}"


# ── real data ─────────────────────────────────────────────────────────────────────────────────────


def test_the_released_ratings(data_folder, tmp_path):
    """All 1,339 solutions; with the texts of MATH's training problems alone 910 of them, of 136 of 216 problems."""
    path, math = str(data_folder / "prm800k/train_val2pct_decoded_dedup.jsonl.gz"), data_folder / "math"
    names = dict.fromkeys(data["problem_id"] for _, data in read_json_lines(path))
    write_records(tmp_path / "all.jsonl", [Problem(id=name, problem=name) for name in names])
    whole = RatedSolutions(path, Problems(str(tmp_path / "all.jsonl")))
    assert count(whole) == (1339, 216, 7663, 604, 1110)
    assert whole.noted == {"steps of several lines": 667, "tails without a rating": 6}
    assert not whole.left_out

    train = MATH(str(math / "math_train.jsonl.gz"))
    reader = RatedSolutions(path, train, exclude=[ProcessBench(str(data_folder / "processbench/math.jsonl.gz"))])
    assert count(reader) == (910, 136, 5038, 397, 754)
    assert reader.left_out == {"of problems without a text": 429}
    assert reader.noted == {"steps of several lines": 389, "tails without a rating": 4}


def test_few_shot_examples_of_the_released_ratings(data_folder):
    """Of 123 solutions with an answer and only correct steps, 97 state the reference answer; they are of 74 problems."""
    math = MATH(str(data_folder / "math/math_train.jsonl.gz"))
    path = str(data_folder / "prm800k/train_val2pct_decoded_dedup.jsonl.gz")
    examples = list(Worked(RatedSolutions(path, math, multiline="join")).problems())
    assert len(examples) == 74
    assert all("\n" not in step for example in examples for step in example.steps)
    assert all("# Answer" in example.steps[-1] for example in examples)


def test_a_solution_that_is_not_read_in_time_is_no_example(tmp_path, make_solution, monkeypatch):
    """It is counted, and the next one of its problem taken."""

    class Slow(Grader):
        def extract(self, texts, fallback="no_answer"):
            return [Extracted(None if "slow" in text else "1", timed_out="slow" in text) for text in texts]

    monkeypatch.setattr("stepverify.readers.worked.Grader", Slow)
    solutions = [
        make_solution([step, "#### 1"], number=4, sample=i, correct=True) for i, step in enumerate(("slow", "b"))
    ]
    write_records(tmp_path / "s.jsonl", solutions)
    worked = Worked(Solutions(str(tmp_path / "s.jsonl")))
    assert [p.steps for p in worked.problems()] == [["b", "#### 1"]]
    assert worked.left_out == {"not read or compared in time": 1}
    assert worked.left_out.first == {"not read or compared in time": "p/4#0"}
