"""The embedded problems: their solutions, their oracle, and the options that change them."""

import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepverify.readers import Synthetic
from stepverify.readers.synthetic import SPLITS, Chain, verdicts
from stepverify.records import InputError
from tests.helpers.readers import said

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
    sampled = {tuple(chain.worked(0.5, random.Random(seed))) for seed in range(40)}
    assert sampled == {
        tuple(CAREFUL),
        ("c = 6 - ( 4 * 3 ) = 1", "d = 1 + 5 = 6", "#### 6"),
        ("b = 4 * 3 = 5", "d = ( 6 - 5 ) + 5 = 6", "#### 6"),
    }


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (CAREFUL, [True] * 4),
        (["c = 6 - ( 4 * 3 ) = 1", "d = 1 + 5 = 6", "#### 6"], [True] * 3),
        (
            ["c = 6 - ( 4 * 3 ) = 2", "d = 2 + 5 = 0", "#### 0"],
            [False] * 3,
        ),  # correctly calculated from an incorrect value
        (["b = 4 * 3 = 2", "c = 6 - 5 = 1"], [False, True]),  # correct again after an error
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
    """Check that every step calculates correctly from the value of the step before, and give the last value."""
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
@settings(max_examples=25)
def test_synthetic_solutions_are_correct(split, modulus, num_steps, operators, hasty, seed):
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
        text = said(reader, "problems")
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
        ({"hasty": 1.5}, "hasty: expected a probability from 0 to 1, got 1.5"),
        ({"operators": "+/"}, r"operators: expected some of '\+-\*', got '\+/'"),
    ],
)
def test_synthetic_options_that_cannot_be(options, expected):
    with pytest.raises(InputError, match=expected):
        Synthetic(**{"split": "train", "num_problems": 1} | options)
