import gzip
import json
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepverify.jsonl import write_records
from stepverify.readers import GSM8K, Problems, Solutions, Synthetic, Worked
from stepverify.readers.synthetic import SPLITS, Chain, verdicts
from stepverify.records import InputError, Problem, StepLabel

JANET = {
    "question": " Natalia sold 48 clips in April and half as many in May. How many? ",
    "answer": "In May <<48/2=24>>24 clips.\n\nIn all 48+24 = <<48+24=72>>72 clips. \n#### 72",
}


def said(reader, method="problems"):
    with pytest.raises(InputError) as caught:
        list(getattr(reader, method)())
    return str(caught.value)


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
    assert said(GSM8K(path, start=-1)) == "start: expected >= 0, got -1"
    assert said(GSM8K(path, limit=-2)) == "limit: expected >= 0, got -2"


def test_the_worked_solutions_of_gsm8k_are_right_ones(tmp_path):
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
        ({"question": "?", "answer": "x\n#### "}, ":2: key 'answer': nothing behind '####'"),
        ('{"question"', ":2: not JSON ("),
    ],
)
def test_gsm8k_bad_rows_are_named(tmp_path, row, expected):
    path = gsm8k_file(tmp_path, JANET, row)
    assert said(GSM8K(path)).startswith(path + expected)
    assert len(list(GSM8K(path, limit=1).problems())) == 1


def test_gsm8k_that_is_not_there(tmp_path):
    for path in (str(tmp_path / "gone"), "./gone", "gone.jsonl", "gone.jsonl.gz"):
        assert said(GSM8K(path)) == f"{path}: no such file"


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


# ── synthetic ─────────────────────────────────────────────────────────────────────────────────────

EXAMPLE = "a = 4 ; b = a * 3 ; c = 6 - b ; d = c + 5 ; d ?"
CAREFUL = ["b = 4 * 3 = 5", "c = 6 - 5 = 1", "d = 1 + 5 = 6", "#### 6"]


def test_the_worked_example():
    """Modulo 7: 4 · 3 = 12 = 5, 6 - 5 = 1, 1 + 5 = 6. Modulo 11: 4 · 3 = 1, 6 - 1 = 5, 5 + 5 = 10."""
    chain = Chain(EXAMPLE, 7)
    assert [*chain.single, "#### 6"] == CAREFUL
    assert chain.double == ["c = 6 - ( 4 * 3 ) = 1", "d = ( 6 - 5 ) + 5 = 6"]
    assert chain.answer == 6
    assert Chain(EXAMPLE, 11).single == ["b = 4 * 3 = 1", "c = 6 - 1 = 5", "d = 5 + 5 = 10"]


def test_the_manners_of_a_worked_solution():
    """Never hasty: one step an assignment. Always: the first two together, and the third, which has no next, alone."""
    chain = Chain(EXAMPLE, 7)
    assert chain.worked(0.0, random.Random(0)) == CAREFUL
    assert chain.worked(1.0, random.Random(0)) == ["c = 6 - ( 4 * 3 ) = 1", "d = 1 + 5 = 6", "#### 6"]
    drawn = {tuple(chain.worked(0.5, random.Random(seed))) for seed in range(40)}
    assert drawn == {
        tuple(CAREFUL),
        ("c = 6 - ( 4 * 3 ) = 1", "d = 1 + 5 = 6", "#### 6"),
        ("b = 4 * 3 = 5", "d = ( 6 - 5 ) + 5 = 6", "#### 6"),
    }


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (CAREFUL, [True] * 4),
        (["c = 6 - ( 4 * 3 ) = 1", "d = 1 + 5 = 6", "#### 6"], [True] * 3),
        (["c = 6 - ( 4 * 3 ) = 2", "d = 2 + 5 = 0", "#### 0"], [False] * 3),  # rightly calculated from a wrong value
        (["b = 4 * 3 = 2", "c = 6 - 5 = 1"], [False, True]),  # right again behind an error
        (["d = 1 + 5 = 6", "#### 6"], [True, True]),  # a step left out
        (["b = 4 * 3 = 5 ", "b = 3 * 4 = 5", "B = 4 * 3 = 5", "c = 6 - 4 * 3 = 1", ""], [False] * 5),
        (["b = 4 * 3 = 5", "b = 4 * 3 = 5"], [True, True]),
        ([], []),
    ],
)
def test_the_oracle_by_hand(steps, expected):
    assert verdicts(EXAMPLE, steps, 7) == expected


@pytest.mark.parametrize(
    "problem",
    ["", "a", "a = x ; a ?", "a = 1 ; b ?", "a = 1 ; b = a / 1 ; b ?", "a = 1 ; b = a + ; b ?",
     "a = 1 ; b = a + 1 ; a ?", "a = 1 ; b = a + 1 ; c = a + 1 ; c ?"],
)  # fmt: skip
def test_another_text_is_no_synthetic_problem(problem):
    with pytest.raises(InputError, match="not a synthetic problem: "):
        Chain(problem, 7)


def recompute(problem, modulus):
    """The value asked for, from the end of the chain to its beginning: another way than Chain goes."""
    *assignments, question = problem.split(" ; ")
    made_from = dict(assignment.split(" = ") for assignment in assignments)

    def value(text):
        if text.isdigit():
            return int(text)
        left, operator, right = [*re.split(r" ([-+*]) ", made_from[text]), "+", "0"][:3]
        x, y = value(left), value(right)
        return x + y if operator == "+" else x - y if operator == "-" else x * y

    return value(question[0]) % modulus


def follow(steps, problem, modulus):
    """Check that every step calculates rightly from the value of the step before, and give the last value."""
    value = int(problem.split(" ; ")[0].removeprefix("a = "))
    for step in steps:
        _, expression, result = step.split(" = ")
        assert str(value) in re.findall(r"\d+", expression)
        x, op, y, *_ = re.search(r"(\d+) ([-+*]) (\d+)", expression).groups()
        inner = {"+": int(x) + int(y), "-": int(x) - int(y), "*": int(x) * int(y)}[op]
        if "(" in expression:
            outer = re.sub(r"\( .* \)", "v", expression)
            left, op, right = outer.split()
            x, y = (inner if part == "v" else int(part) for part in (left, right))
            inner = {"+": x + y, "-": x - y, "*": x * y}[op]
        assert inner % modulus == int(result)
        value = int(result)
    return value


@given(
    st.sampled_from(SPLITS), st.integers(20, 60), st.integers(2, 9),
    st.text("+-*", min_size=1, max_size=4), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=50)
def test_synthetic_solutions_are_right(split, modulus, num_steps, operators, hasty, seed):
    reader = Synthetic(split, 2, modulus, num_steps, operators, hasty, seed=seed)
    for number, problem in enumerate(reader.problems()):
        *steps, final = problem.steps
        assert problem.id == f"synthetic/{split}/{number}"
        assert problem.meta == {"modulus": modulus}
        assert len(steps) + sum("(" in step for step in steps) == num_steps
        assert (
            problem.answer == str(recompute(problem.problem, modulus)) == str(follow(steps, problem.problem, modulus))
        )
        assert final == f"#### {problem.answer}"
        assert verdicts(problem.problem, problem.steps, modulus) == [True] * len(problem.steps)
        assert set(re.findall(r" ([-+*]) ", problem.problem)) <= set(operators)


def test_synthetic_options_change_the_problems():
    def texts(**options):
        return [p.problem for p in Synthetic("train", 20, **options).problems()]

    assert texts() == texts()
    assert texts(seed=1) == texts(seed=1)
    assert texts(worked=False) == texts(hasty=0.5) == texts()
    for options in ({"seed": 1}, {"modulus": 5}, {"num_steps": 3}, {"operators": "+"}):
        assert texts(**options) != texts()
    assert texts()[:5] == [p.problem for p in Synthetic("train", 5).problems()]
    # The manner hangs on the problem alone, so it is the same in every run.
    assert list(Synthetic("train", 20, hasty=0.5).solutions()) == list(Synthetic("train", 20, hasty=0.5).solutions())


def test_the_tokenizer_knows_every_word(tokenizer):
    for problem in Synthetic("demonstrations", 50, num_steps=9, hasty=0.5).problems():
        assert tokenizer.unk_token_id not in tokenizer.encode("\n".join([problem.problem, *problem.steps]))


def test_without_worked_solutions_there_is_nothing_to_imitate():
    reader = Synthetic("train", 3, worked=False)
    assert [p.steps for p in reader.problems()] == [[], [], []]
    assert all(p.answer for p in reader.problems())
    assert list(reader.solutions()) == []
    assert len(list(Synthetic("train", 3).solutions())) == 3


def test_the_splits_share_no_problem_whatever_their_seeds():
    seen = {
        split: {p.problem for seed in (0, 1, 2) for p in Synthetic(split, 40, 5, 2, seed=seed).problems()}
        for split in SPLITS
    }
    assert all(len(texts) > 40 for texts in seen.values())
    counts = Counter(text for texts in seen.values() for text in texts)
    assert max(counts.values()) == 1


def test_more_problems_than_there_are():
    """Modulo 2, one step, only +: a is 0 or 1, b = a + 1 or 1 + a. Four problems over all splits."""
    found = []
    for split in SPLITS:
        reader = Synthetic(split, 7, modulus=2, num_steps=1, operators="+")
        text = said(reader)
        number = int(re.fullmatch(r"num_problems: found only (\d) different problems of 1 steps", text)[1])
        if number:
            found += [p.problem for p in Synthetic(split, number, modulus=2, num_steps=1, operators="+").problems()]
    assert sorted(found) == [f"a = {a} ; b = {b} ; b ?" for a in (0, 1) for b in ("1 + a", "a + 1")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_problems": 0}, "num_problems: expected >= 1, got 0"),
        ({"modulus": 1}, "modulus: expected >= 2, got 1"),
        ({"num_steps": 0}, "num_steps: expected 1 to 9, got 0"),
        ({"num_steps": 10}, "num_steps: expected 1 to 9, got 10"),
        ({"operators": ""}, r"operators: expected some of '\+-\*', got ''"),
        ({"hasty": 1.5}, "hasty: expected a chance from 0 to 1, got 1.5"),
        ({"operators": "+/"}, r"operators: expected some of '\+-\*', got '\+/'"),
    ],
)
def test_synthetic_options_that_cannot_be(options, expected):
    with pytest.raises(InputError, match=expected):
        Synthetic(**{"split": "train", "num_problems": 1} | options)


# ── the project's own records ─────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def solutions(tmp_path_factory, make_solution):
    """Two samples of each of 60 problems; the second one is right; every third problem has step labels."""
    path = tmp_path_factory.mktemp("solutions") / "part-00000.jsonl"
    write_records(
        path,
        (
            make_solution(
                number=number, sample=sample, answer="1", correct=bool(sample), meta={"level": number},
                step_labels=[StepLabel(rating=1)] if number % 3 == 0 else None,
            )
            for number in range(60) for sample in range(2)
        ),
    )  # fmt: skip
    return str(path)


def ids(reader):
    return [solution.id for solution in reader.solutions()]


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
@settings(max_examples=40)
def test_the_folds_divide_the_problems(solutions, fraction):
    """Train and validation have all solutions between them, in order, and no problem in common."""
    train = list(Solutions(solutions, "train", fraction).solutions())
    validation = list(Solutions(solutions, "validation", fraction).solutions())
    assert {s.problem_id for s in train}.isdisjoint(s.problem_id for s in validation)
    both = {s.id for s in train} | {s.id for s in validation}
    assert [i for i in ids(Solutions(solutions)) if i in both] == ids(Solutions(solutions))
    assert len(train) + len(validation) == 120
    assert [s.id for s in train] == [i for i in ids(Solutions(solutions)) if i in {s.id for s in train}]


def test_the_fold_follows_its_fraction(solutions):
    """60 problems at 30 %: 18 expected, with a standard deviation of 3.5. A larger fold holds the smaller one."""
    small = {s.problem_id for s in Solutions(solutions, "validation", 0.3).solutions()}
    large = {s.problem_id for s in Solutions(solutions, "validation", 0.6).solutions()}
    assert 8 <= len(small) <= 28
    assert small < large
    assert ids(Solutions(solutions, "train", 0.0)) == ids(Solutions(solutions, "all", 0.5)) == ids(Solutions(solutions))


@pytest.mark.parametrize(
    ("fold", "fraction", "expected"),
    [
        ("validation", 0.0, "validation_fraction: 0 leaves nothing for fold: validation"),
        ("train", 1.0, "validation_fraction: expected 0 <= fraction < 1, got 1.0"),
        ("all", -0.1, "validation_fraction: expected 0 <= fraction < 1, got -0.1"),
    ],
)
def test_fractions_that_cannot_be(solutions, fold, fraction, expected):
    assert said(Solutions(solutions, fold, fraction), "solutions") == expected


def test_solutions_are_chosen_before_they_are_counted(solutions):
    assert ids(Solutions(solutions, limit=3)) == ["p/0#0", "p/0#1", "p/1#0"]
    assert ids(Solutions(solutions, limit=3, correct_only=True)) == ["p/0#1", "p/1#1", "p/2#1"]
    assert ids(Solutions(solutions, limit=3, steps_labelled_only=True)) == ["p/0#0", "p/0#1", "p/3#0"]
    assert ids(Solutions(solutions, correct_only=True, steps_labelled_only=True)) == [f"p/{3 * i}#1" for i in range(20)]
    assert ids(Solutions(solutions, limit=3, max_solutions=1)) == ["p/0#0", "p/1#0", "p/2#0"]
    assert ids(Solutions(solutions, limit=3, max_solutions=1, correct_only=True)) == ["p/0#1", "p/1#1", "p/2#1"]
    assert said(Solutions(solutions, limit=-1), "solutions") == "limit: expected >= 0, got -1"
    with pytest.raises(InputError, match=r"^max_solutions: expected >= 1 or null, got 0$"):
        Solutions(solutions, max_solutions=0)


def test_problems_with_one_kind_of_answers_are_dropped_and_counted(tmp_path, make_solution):
    """p/0 has both kinds, p/1 is all right, p/2 all wrong; what another choice leaves decides."""
    kinds = [(0, True), (0, False), (1, True), (1, True), (2, False), (2, False), (2, False)]
    path = tmp_path / "s.jsonl"
    write_records(path, [make_solution(number=n, sample=i, correct=c) for i, (n, c) in enumerate(kinds)])
    reader = Solutions(str(path), one_sided="drop")
    for _ in range(2):
        assert ids(reader) == ["p/0#0", "p/0#1"]
        assert reader.left_out == {"of problems without a wrong solution": 2, "of problems without a right solution": 3}
    assert ids(Solutions(str(path), one_sided="drop", limit=1)) == ["p/0#0"]
    only_first = Solutions(str(path), one_sided="drop", max_solutions=1)
    assert ids(only_first) == []
    assert len(ids(Solutions(str(path)))) == 7
    write_records(path, [make_solution(sample=0)])
    assert said(reader, "solutions") == f"{path}: solution p/0#0 has no 'correct'; run sampling label on it first"


def test_of_equal_steps_only_the_first_is_taken(tmp_path, make_solution):
    """p/0: a, b, "a ", b, c, of which c alone is wrong; p/1 has a too. Twins go before the cap counts: a and b are two."""
    steps = [(0, "a", True), (0, "b", True), (1, "a", True), (0, "a ", True), (0, "b", True), (0, "c", False)]
    path = tmp_path / "s.jsonl"
    write_records(path, [make_solution([s, "#"], number=n, sample=i, correct=c) for i, (n, s, c) in enumerate(steps)])
    reader = Solutions(str(path), distinct=True)
    for _ in range(2):
        assert ids(reader) == ["p/0#0", "p/0#1", "p/1#2", "p/0#5"]
        assert reader.left_out == {"with the steps of an earlier one": 2}
    assert ids(Solutions(str(path), distinct=True, max_solutions=2)) == ["p/0#0", "p/0#1", "p/1#2"]
    assert ids(Solutions(str(path), distinct=True, max_solutions=2, limit=2)) == ["p/0#0", "p/0#1"]
    assert [p.id for p in reader.problems()] == ["p/0", "p/1"]
    mixed = Solutions(str(path), distinct=True, one_sided="drop")
    for _ in range(2):
        assert ids(mixed) == ["p/0#0", "p/0#1", "p/0#5"]
        assert mixed.left_out == {
            "with the steps of an earlier one": 2, "of problems without a wrong solution": 1,
        }, "the file is read twice, twins are counted once"  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", "c "])), max_size=12), st.integers(1, 3))
def test_what_is_distinct_is_all_there_is(tmp_path_factory, make_solution, rows, cap):
    path = tmp_path_factory.mktemp("distinct") / "s.jsonl"
    write_records(path, [make_solution([s], number=n, sample=i) for i, (n, s) in enumerate([*rows, (9, "z")])])
    reader = Solutions(str(path), distinct=True)
    found = [(s.problem_id, s.steps[0]) for s in reader.solutions()]
    assert len(set(found)) == len(found)
    assert set(found) == {(f"p/{n}", s) for n, s in rows} | {("p/9", "z")}
    assert len(found) + reader.left_out.total() == len(rows) + 1
    capped = [s.id for s in Solutions(str(path), distinct=True, max_solutions=cap).solutions()]
    first = Counter()
    assert capped == [
        s.id for s in reader.solutions() if not first.update([s.problem_id]) and first[s.problem_id] <= cap
    ]


# ── right solutions as worked problems ────────────────────────────────────────────────────────────


def labels(*ratings):
    return [None if rating is None else StepLabel(rating=rating) for rating in ratings]


@pytest.mark.parametrize(
    ("known", "is_right"),
    [
        ({"correct": True}, True),
        ({"correct": False}, False),
        ({}, False),
        ({"step_labels": labels(1, 1)}, True),
        ({"step_labels": labels(1, 1), "answer": "1.0"}, True),
        ({"step_labels": labels(1, 1), "answer": "2"}, False),
        ({"step_labels": labels(1, None)}, False),
        ({"step_labels": labels(1, 0)}, False),
        ({"step_labels": labels(-1, 1)}, False),
        ({"step_labels": labels(1, 1), "correct": False}, False),
        ({"step_labels": labels(1, None), "correct": True}, True),
        ({"step_labels": labels(0, None), "correct": True}, False),
        ({"step_labels": [StepLabel(num_right=0, num_rollouts=4), None], "correct": True}, False),
        ({"step_labels": [StepLabel(num_right=1, num_rollouts=4), None], "correct": True}, True),
        ({"step_labels": [StepLabel(num_right=1, num_rollouts=4)] * 2}, False),
    ],
)
def test_which_solutions_are_worked_ones(tmp_path, make_solution, known, is_right):
    """A verdict, or ratings of all steps and the reference answer, make it right; one doubtful step does not."""
    write_records(tmp_path / "s.jsonl", [make_solution(["a", "#### 1"], **known)])
    assert bool(list(Worked(Solutions(str(tmp_path / "s.jsonl"))).problems())) == is_right


def test_worked_problems_in_order_a_step_a_line(tmp_path, make_solution):
    """p/0 has a wrong solution before its right ones; p/1 states no answer; p/2 is PRM800K's manner; p/3 is long."""
    long = ["x"] * 5 + ["#### 3"]
    rows = [
        (0, ["a", "#### 9"], False), (1, ["b"], True), (2, ["So\n\\[ x = 2 \\]", "Right.\n\n# Answer\n\n2"], True),
        (0, ["c", "#### 0"], True), (0, ["d", "#### 0"], True), (3, long, True),
    ]  # fmt: skip
    path = tmp_path / "s.jsonl"
    write_records(path, [make_solution(s, number=n, sample=i, correct=c) for i, (n, s, c) in enumerate(rows)])
    problems = list(Worked(Solutions(str(path))).problems())
    assert [(p.id, p.steps) for p in problems] == [
        ("p/2", ["So \\[ x = 2 \\]", "Right. # Answer 2"]), ("p/0", ["c", "#### 0"]), ("p/3", long),
    ]  # fmt: skip

    def chosen(**options):
        return [p.id for p in Worked(Solutions(str(path)), **options).problems()]

    assert chosen(limit=2) == ["p/2", "p/0"]
    assert chosen(start=1, limit=1) == ["p/0"]
    assert chosen(max_steps=5) == ["p/2", "p/0"]
    assert [(s.id, s.correct) for s in Worked(Solutions(str(path)), limit=1).solutions()] == [("p/2#0", True)]


def test_the_problems_of_solutions_occur_once(solutions):
    problems = list(Solutions(solutions).problems())
    assert [p.id for p in problems] == [f"p/{i}" for i in range(60)]
    assert problems[7] == Problem(id="p/7", problem="a = 7", answer="1", meta={"level": 7})


def test_right_solutions_need_grades(tmp_path, make_solution):
    path = tmp_path / "s.jsonl"
    write_records(path, [make_solution(sample=0, correct=True), make_solution(sample=1)])
    assert said(Solutions(str(path), correct_only=True), "solutions") == (
        f"{path}: solution p/0#1 has no 'correct'; run sampling label on it first"
    )
    assert ids(Solutions(str(path))) == ["p/0#0", "p/0#1"]


def test_own_problems(tmp_path, make_problem):
    path = tmp_path / "p.jsonl"
    write_records(path, [make_problem(i, steps=["1"] if i == 2 else []) for i in range(5)])

    def chosen(**options):
        return [p.id for p in Problems(str(path), **options).problems()]

    assert chosen() == ["p/0", "p/1", "p/2", "p/3", "p/4"]
    assert chosen(start=1, limit=2) == ["p/1", "p/2"]
    assert chosen(start=4, limit=9) == ["p/4"]
    assert ids(Problems(str(path))) == ["p/2#0"]
    assert said(Problems(str(path), start=-1)) == "start: expected >= 0, got -1"
