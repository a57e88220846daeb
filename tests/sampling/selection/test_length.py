"""Products of step values that count steps in place of judging them."""

import pytest

from sampling.selection.candidates import Sample
from sampling.selection.length import describe_length_bias, find_length_bias
from sampling.stages.rank import rank
from sampling.stages.report import report
from stepverify.jsonl import write_records
from stepverify.records import Solution

DEFAULT = {"how": "prod", "chosen_on": "default"}


def pool(values, correct, problems=3):
    """Solutions of one to four steps; ``values`` and ``correct`` of the number of steps."""
    return {
        f"p{p}": [Sample(f"p{p}#{n}", "1", "1", correct(n), n, {"prm": values(n)}) for n in (1, 2, 3, 4)]
        for p in range(problems)
    }


def test_a_product_that_falls_with_every_step_is_found():
    """0.9 to the power of n orders four solutions by their length, ρ = −1; correct ones have 1 and 4 steps, r = 0."""
    found = find_length_bias(pool(lambda n: [0.9] * n, lambda n: n in (1, 4)), {"prm": DEFAULT})
    assert (found["prm"].score, found["prm"].correct) == (pytest.approx(-1), pytest.approx(0))
    (said,) = describe_length_bias(found)
    assert "within problems −1.00, of being correct +0.00)" in said


@pytest.mark.parametrize(
    ("values", "correct", "choice"),
    [
        (lambda n: [0.9] * n, lambda n: n in (1, 4), {"how": "prod", "chosen_on": "configured"}),
        (lambda n: [0.9] * n, lambda n: n in (1, 4), {"how": "prod", "chosen_on": "validation"}),
        (lambda n: [0.9] * n, lambda n: n in (1, 4), {"how": "last", "chosen_on": "default"}),
        (lambda n: [0.9] * n, lambda n: n < 3, DEFAULT),  # short ones are correct: r = −2 / √5 = −0.89
        (
            lambda n: [1.0] * (n - 1) + [[0.6, 0.9, 0.8, 0.5][n - 1]],
            lambda n: n == 3,
            DEFAULT,
        ),  # ranks 2, 4, 3, 1: ρ = −0.4
        (lambda n: [0.5], lambda n: n == 2, DEFAULT),  # a constant has no order
        (lambda n: [], lambda n: n == 2, DEFAULT),
    ],
)
def test_what_was_chosen_or_follows_the_truth_is_left_alone(values, correct, choice):
    assert find_length_bias(pool(values, correct), {"prm": choice}) == {}


def test_rank_and_report_say_it(tmp_path, capsys):
    write_records(
        tmp_path / "scored.jsonl",
        [
            Solution(
                id=f"p{p}#{n}", problem_id=f"p{p}", problem="?", answer="1", steps=["x"] * n, predicted="1" if n % 3 == 1 else "2",
                correct=n % 3 == 1, finish="stop", scores={"prm": [0.9] * n},
            )
            for p in range(4)
            for n in (1, 2, 3, 4)
        ],
    )  # fmt: skip
    rank(tmp_path / "scored.jsonl", tmp_path / "ranked")
    assert "WARNING: prm: the product of its step values mostly counts steps" in capsys.readouterr().out
    report(tmp_path / "ranked", output=tmp_path / "report", num_bootstrap=10)
    assert "prm: the product of its step values mostly counts steps" in (tmp_path / "report/report.md").read_text()
    rank(tmp_path / "scored.jsonl", tmp_path / "last", aggregation={"prm": "last"})
    assert "WARNING" not in capsys.readouterr().out
