import gzip
import json

import pytest

from stepverify.jsonl import write_records
from stepverify.readers import GSM8K, Problems, Solutions
from stepverify.readers.base import in_fold
from stepverify.records import Problem, Solution
from tests.helpers.readers import said

JANET = {
    "question": " Natalia sold 48 clips in April and half as many in May. How many? ",
    "answer": "In May <<48/2=24>>24 clips.\n\nIn all 48+24 = <<48+24=72>>72 clips. \n#### 72",
}


def gsm8k_file(folder, *rows):
    path = folder / "gsm8k.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


# ── GSM8K ─────────────────────────────────────────────────────────────────────────────────────────


def test_gsm8k_as_it_is(tmp_path):
    (problem,) = GSM8K(gsm8k_file(tmp_path, JANET)).problems()
    assert problem == Problem(
        id="gsm8k/train/0",
        problem="Natalia sold 48 clips in April and half as many in May. How many?",
        answer="72",
        steps=["In May <<48/2=24>>24 clips.", "In all 48+24 = <<48+24=72>>72 clips.", "#### 72"],
    )


def test_gsm8k_without_its_annotations(tmp_path):
    (problem,) = GSM8K(gsm8k_file(tmp_path, JANET), annotations=False).problems()
    assert problem.steps == ["In May 24 clips.", "In all 48+24 = 72 clips.", "#### 72"]


def test_gsm8k_answers_stay_as_written(tmp_path):
    row = {"question": "?", "answer": "####  1,000.50 "}
    (problem,) = GSM8K(gsm8k_file(tmp_path, row), split="test").problems()
    assert (problem.id, problem.answer, problem.steps) == ("gsm8k/test/0", "1,000.50", ["####  1,000.50"])


def test_gsm8k_counts_rows_in_the_whole_file(tmp_path):
    rows = [{"question": f"q{i}", "answer": f"#### {i}"} for i in range(6)]
    path = gsm8k_file(tmp_path, *rows)
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "gsm8k.jsonl").read_bytes()))

    def ids(**options):
        return [(p.id, p.problem) for p in GSM8K(path, **options).problems()]

    every = [(f"gsm8k/train/{i}", f"q{i}") for i in range(6)]
    assert ids() == every
    assert ids(limit=2) == every[:2]
    assert ids(start=4) == every[4:]
    assert ids(start=1, limit=3) == every[1:4]
    assert ids(limit=0) == []
    assert ids(start=9) == []
    assert [(p.id, p.problem) for p in GSM8K(str(packed)).problems()] == every
    assert said(GSM8K(path, start=-1), "problems") == "start: expected >= 0, got -1"
    assert said(GSM8K(path, limit=-2), "problems") == "limit: expected >= 0, got -2"


def test_problems_are_read_in_the_order_of_a_seed(tmp_path):
    """Ids and texts stay together, the seed alone decides, and parts by start and limit make up the whole."""
    path = gsm8k_file(tmp_path, *({"question": f"q{i}", "answer": f"#### {i}"} for i in range(20)))

    def ids(reader, **options):
        return [(p.id, p.problem) for p in reader(path, **options).problems()]

    every, shuffled = ids(GSM8K), ids(GSM8K, shuffle=0)
    assert shuffled != every
    assert sorted(shuffled) == sorted(every)
    assert ids(GSM8K, shuffle=0) == shuffled != ids(GSM8K, shuffle=1)
    assert ids(GSM8K, shuffle=0, limit=7) + ids(GSM8K, shuffle=0, start=7) == shuffled
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps({"id": i, "problem": q, "answer": "1"}) + "\n" for i, q in every))
    assert [(p.id, p.problem) for p in Problems(str(own), shuffle=0).problems()] == shuffled


def test_reference_solutions_are_divided_as_samples_are(tmp_path):
    """A problem that a verifier is validated on is in the validation fold of every reader, by its id."""
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"question": f"q{n}", "answer": f"{n}\n#### {n}"}) + "\n" for n in range(200)))
    every = [p.id for p in GSM8K(str(path)).problems()]
    samples = [Solution(id=f"{id}#0", problem_id=id, problem="q", steps=["1"]) for id in every]
    write_records(tmp_path / "samples.jsonl", samples)
    for fold in ("train", "validation"):
        taken = [p.id for p in GSM8K(str(path), fold=fold).problems()]
        assert taken == [s.problem_id for s in Solutions(str(tmp_path / "samples.jsonl"), fold=fold).solutions()]
        assert 0 < len(taken) < len(every)
    assert [p.id for p in GSM8K(str(path), limit=50, fold="train").problems()] == [
        id for id in every[:50] if in_fold(id, "train", 0.1)
    ]


def test_the_worked_solutions_of_gsm8k_are_correct_ones(tmp_path):
    (solution,) = GSM8K(gsm8k_file(tmp_path, JANET), split="test").solutions()
    assert (solution.id, solution.problem_id, solution.answer) == ("gsm8k/test/0#0", "gsm8k/test/0", "72")
    assert (solution.finish, solution.predicted, solution.correct) == ("stop", "72", True)
    assert len(solution.steps) == 3


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1], ":2: expected an object, got [1]"),
        ({"question": "?"}, ":2: missing key 'answer'; found ['question']"),
        ({"answer": "#### 1"}, ":2: missing key 'question'; found ['answer']"),
        ({"question": None, "answer": "#### 1"}, ":2: key 'question': expected a string, got None"),
        ({"question": "?", "answer": 72}, ":2: key 'answer': expected a string, got 72"),
        ({"question": "?", "answer": "so 72"}, ":2: key 'answer': no final line '#### …' in 'so 72'"),
        ({"question": "?", "answer": "#### 72\nor so"}, ":2: key 'answer': no final line '#### …' in "),
        ({"question": "?", "answer": " \n"}, ":2: key 'answer': no final line '#### …' in "),
        ({"question": "?", "answer": "x\n#### "}, ":2: key 'answer': nothing after '####'"),
        ('{"question"', ":2: not JSON ("),
    ],
)
def test_gsm8k_bad_rows_are_named(tmp_path, row, expected):
    path = gsm8k_file(tmp_path, JANET, row)
    assert said(GSM8K(path), "problems").startswith(path + expected)
    assert len(list(GSM8K(path, limit=1).problems())) == 1


def test_gsm8k_that_is_not_there(tmp_path):
    for path in (str(tmp_path / "gone"), "./gone", "gone.jsonl", "gone.jsonl.gz"):
        assert said(GSM8K(path), "problems") == f"{path}: no such file"


@pytest.mark.slow
@pytest.mark.parametrize(("split", "count"), [("train", 7473), ("test", 1319)])
def test_gsm8k_whole(data_folder, split, count):
    """The counts of the release (Cobbe et al. 2021, section 2: 7.5K and 1K)."""
    path = str(data_folder / "gsm8k" / f"{split}.jsonl.gz")
    problems = list(GSM8K(path, split=split).problems())
    assert len(problems) == count
    assert problems[-1].id == f"gsm8k/{split}/{count - 1}"
    assert all(problem.steps[-1] == f"#### {problem.answer}" for problem in problems)
    plain = list(GSM8K(path, split=split, annotations=False).problems())
    assert not any("<<" in step for problem in plain for step in problem.steps)
