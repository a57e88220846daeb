"""The project's own records as data: folds, choices, texts from elsewhere, correct solutions as worked problems."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from stepverify.jsonl import write_records
from stepverify.readers import Problems, Solutions, Worked
from stepverify.records import InputError, Problem, StepLabel
from tests.helpers.readers import said


@pytest.fixture(scope="module")
def solutions(tmp_path_factory, make_solution):
    """Two samples of each of 60 problems; the second one is correct; every third problem has step labels."""
    path = tmp_path_factory.mktemp("solutions") / "part-00000.jsonl"
    write_records(path, [
        make_solution(
            number=number, sample=sample, answer="1", correct=bool(sample), meta={"level": number},
            step_labels=[StepLabel(rating=1)] if number % 3 == 0 else None,
        )
        for number in range(60) for sample in range(2)
    ])  # fmt: skip
    return str(path)


def ids(reader):
    return [solution.id for solution in reader.solutions()]


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
@settings(max_examples=25)
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


def test_solutions_below_a_score_are_left_out(tmp_path, make_solution):
    """Smallest values 0.4, 0.5, 0.6 at 0.5, and a solution that was too long to be scored."""
    scores, path = [[0.9, 0.4], [0.5, 0.9], [0.6, 0.6], []], str(tmp_path / "s.jsonl")
    write_records(path, [make_solution(sample=i, steps=["a", "b"], scores={"prm": s}) for i, s in enumerate(scores)])
    assert ids(reader := Solutions(path, min_score={"prm": 0.5})) == ["p/0#1", "p/0#2"]
    assert reader.left_out == {"with a score by prm below 0.5": 1, "that prm did not score, as too long": 1}
    expected = f"{path}: solution p/0#0: min_score: no scores by 'orm'; found ['prm']"
    assert said(Solutions(path, min_score={"orm": 0.5}), "solutions") == expected


def test_problems_with_one_kind_of_answers_are_dropped_and_counted(tmp_path, make_solution):
    """p/0 has both kinds, p/1 is all correct, p/2 all incorrect; what another choice leaves decides."""
    kinds = [(0, True), (0, False), (1, True), (1, True), (2, False), (2, False), (2, False)]
    path = tmp_path / "s.jsonl"
    write_records(path, [make_solution(number=n, sample=i, correct=c) for i, (n, c) in enumerate(kinds)])
    reader = Solutions(str(path), balance="mixed_only")
    for _ in range(2):
        assert ids(reader) == ["p/0#0", "p/0#1"]
        assert reader.left_out == {
            "of problems without an incorrect solution": 2,
            "of problems without a correct solution": 3,
        }
    assert ids(Solutions(str(path), balance="mixed_only", limit=1)) == ["p/0#0"]
    only_first = Solutions(str(path), balance="mixed_only", max_solutions=1)
    assert ids(only_first) == []
    assert len(ids(Solutions(str(path)))) == 7
    write_records(path, [make_solution(sample=0)])
    assert said(reader, "solutions") == f"{path}: solution p/0#0 has no 'correct'; run sampling label on it first"


def test_of_each_problem_as_many_correct_as_incorrect_ones_are_taken(tmp_path, make_solution):
    """p/0: correct, incorrect, incorrect, correct, incorrect: the last is one too many. p/1: incorrect, correct, correct. p/2 is all incorrect."""
    kinds = [(0, 1), (0, 0), (1, 0), (0, 0), (0, 1), (1, 1), (0, 0), (1, 1), (2, 0)]
    path = tmp_path / "s.jsonl"
    write_records(path, [make_solution(number=n, sample=i, correct=bool(c)) for i, (n, c) in enumerate(kinds)])
    reader = Solutions(str(path), balance="per_problem")
    for _ in range(2):
        assert ids(reader) == ["p/0#0", "p/0#1", "p/1#2", "p/0#3", "p/0#4", "p/1#5"]
        assert reader.left_out == {
            "incorrect beyond the number of correct ones of their problem": 1, "correct beyond the number of incorrect ones of their problem": 1,
            "of problems without a correct solution": 1,
        }  # fmt: skip
    assert ids(Solutions(str(path), balance="per_problem", max_solutions=2)) == ["p/0#0", "p/0#1", "p/1#2", "p/1#5"]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=20))
def test_even_problems_say_nothing_of_rightness(tmp_path_factory, make_solution, rows):
    """Whatever was sampled: half of each problem's solutions are correct, and none of the rarer side is lost."""
    path = tmp_path_factory.mktemp("even") / "s.jsonl"
    rows = [*rows, (9, True), (9, False)]
    write_records(path, [make_solution(number=n, sample=i, correct=c) for i, (n, c) in enumerate(rows)])
    reader = Solutions(str(path), balance="per_problem")
    taken = Counter((s.problem_id, s.correct) for s in reader.solutions())
    sampled = Counter((f"p/{n}", c) for n, c in rows)
    for problem in {problem for problem, _ in sampled}:
        fewer = min(sampled[problem, True], sampled[problem, False])
        assert taken[problem, True] == taken[problem, False] == fewer
    assert taken.total() + sum(reader.left_out.values()) == len(rows)


def test_of_equal_steps_only_the_first_is_taken(tmp_path, make_solution):
    """p/0: a, b, "a ", b, c, of which c alone is incorrect; p/1 has a too. Twins go before the cap counts: a and b are two."""
    steps = [(0, "a", True), (0, "b", True), (1, "a", True), (0, "a ", True), (0, "b", True), (0, "c", False)]
    path = tmp_path / "s.jsonl"
    write_records(path, [make_solution([s, "#"], number=n, sample=i, correct=c) for i, (n, s, c) in enumerate(steps)])
    reader = Solutions(str(path), distinct=True)
    for _ in range(2):
        assert ids(reader) == ["p/0#0", "p/0#1", "p/1#2", "p/0#5"]
        assert reader.left_out == {"with the same steps as an earlier one": 2}
    assert ids(Solutions(str(path), distinct=True, max_solutions=2)) == ["p/0#0", "p/0#1", "p/1#2"]
    assert ids(Solutions(str(path), distinct=True, max_solutions=2, limit=2)) == ["p/0#0", "p/0#1"]
    assert [p.id for p in reader.problems()] == ["p/0", "p/1"]
    mixed = Solutions(str(path), distinct=True, balance="mixed_only")
    for _ in range(2):
        assert ids(mixed) == ["p/0#0", "p/0#1", "p/0#5"]
        assert mixed.left_out == {
            "with the same steps as an earlier one": 2, "of problems without an incorrect solution": 1,
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


# ── texts of problems from elsewhere ──────────────────────────────────────────────────────────────


@pytest.fixture
def textless(tmp_path, make_problem, make_solution):
    """Two solutions of problems 0 and 1 without texts, and a file of the problems."""
    write_records(tmp_path / "problems.jsonl", [make_problem(number) for number in range(3)])
    whole = [make_solution(number=number) for number in (0, 1)]
    write_records(tmp_path / "bare.jsonl", [replace(s, problem="", answer=None) for s in whole])
    return str(tmp_path / "bare.jsonl"), Problems(str(tmp_path / "problems.jsonl")), whole


def test_texts_and_answers_come_from_the_problems(textless):
    path, problems, whole = textless
    assert list(Solutions(path, problems=problems).solutions()) == whole
    assert [p.problem for p in Solutions(path, problems=problems).problems()] == [s.problem for s in whole]


def test_what_a_line_says_itself_stands(tmp_path, textless):
    _, problems, (first, second) = textless
    own = [replace(first, problem="Another text?", answer="7"), replace(second, problem="", answer="8")]
    write_records(tmp_path / "own.jsonl", own)
    found = list(Solutions(str(tmp_path / "own.jsonl"), problems=problems).solutions())
    assert [(s.problem, s.answer) for s in found] == [("Another text?", "7"), (second.problem, "8")]


def test_problems_whose_text_is_excluded_do_not_enter_without_it(tmp_path, textless):
    path, problems, (first, second) = textless
    write_records(tmp_path / "excluded.jsonl", [first])
    reader = Solutions(path, problems=problems, exclude=[Solutions(str(tmp_path / "excluded.jsonl"))])
    assert ids(reader) == [second.id]


def test_a_text_that_is_nowhere_is_named(textless):
    path, problems, (first, _) = textless
    problems.start = 1
    assert said(Solutions(path, problems=problems), "solutions") == (
        f"{path}: solution {first.id}: key 'problem' is empty, and Problems has no {first.problem_id!r}"
    )
    assert said(Solutions(path), "solutions").endswith("and 'problems' names no source of 'p/0'")


# ── correct solutions as worked problems ────────────────────────────────────────────────────────────


def labels(*ratings):
    return [None if rating is None else StepLabel(rating=rating) for rating in ratings]


@pytest.mark.parametrize(
    ("known", "is_correct"),
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
        ({"step_labels": [StepLabel(num_correct=0, num_rollouts=4), None], "correct": True}, False),
        ({"step_labels": [StepLabel(num_correct=1, num_rollouts=4), None], "correct": True}, True),
        ({"step_labels": [StepLabel(num_correct=1, num_rollouts=4)] * 2}, False),
    ],
)
def test_which_solutions_are_worked_ones(tmp_path, make_solution, known, is_correct):
    """A verdict, or ratings of all steps and the reference answer, make it correct; one doubtful step does not."""
    write_records(tmp_path / "s.jsonl", [make_solution(["a", "#### 1"], **known)])
    assert bool(list(Worked(Solutions(str(tmp_path / "s.jsonl"))).problems())) == is_correct


def test_worked_problems_in_order_a_step_a_line(tmp_path, make_solution):
    """p/0 has an incorrect solution before its correct ones; p/1 states no answer; p/2 is PRM800K's manner; p/3 is long."""
    long = ["x"] * 5 + ["#### 3"]
    rows = [
        (0, ["a", "#### 9"], False), (1, ["b"], True), (2, ["So\n\\[ x = 2 \\]", "Correct.\n\n# Answer\n\n2"], True),
        (0, ["c", "#### 0"], True), (0, ["d", "#### 0"], True), (3, long, True),
    ]  # fmt: skip
    path = tmp_path / "s.jsonl"
    write_records(path, [make_solution(s, number=n, sample=i, correct=c) for i, (n, s, c) in enumerate(rows)])
    problems = list(Worked(Solutions(str(path))).problems())
    assert [(p.id, p.steps) for p in problems] == [
        ("p/2", ["So \\[ x = 2 \\]", "Correct. # Answer 2"]), ("p/0", ["c", "#### 0"]), ("p/3", long),
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


def test_correct_solutions_need_grades(tmp_path, make_solution):
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
    assert said(Problems(str(path), start=-1), "problems") == "start: expected >= 0, got -1"
