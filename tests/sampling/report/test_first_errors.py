"""First errors by threshold (ProcessBench): exact on small scores, and the stage without rankings."""

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.__main__ import main
from sampling.report.collect import collect, hit_range, step_truth
from sampling.report.first_errors import choose_threshold, first_error_statistics, harmonic_mean
from sampling.report.quality import solution_statistics, step_statistics
from sampling.stages.report import report
from stepverify.jsonl import write_records
from stepverify.records import InputError, Solution, StepLabel


def judged(index, values, first, *, subset="gsm8k", num_steps=None, name="prm", lengths=None):
    """As ProcessBench labels it: correct up to the first error, nothing known after it."""
    num_steps = num_steps or len(values)
    known = [1] * num_steps if first < 0 else [1] * first + [-1] + [None] * (num_steps - first - 1)
    return Solution(
        id=f"p{index}#0", problem_id=f"p{index}", problem="Question",
        steps=["s" * n for n in lengths or [1] * num_steps], scores={name: values},
        step_labels=[r if r is None else StepLabel(rating=r) for r in known], meta={"subset": subset} if subset else {},
    )  # fmt: skip


def statistics(tmp_path, rows, threshold_subset=None, num_bootstrap=200):
    write_records(tmp_path / "s.jsonl", rows)
    found = first_error_statistics(collect(tmp_path / "s.jsonl"), threshold_subset, num_bootstrap, 0)
    return {name: asdict(one) for name, one in found.items()}


def means(rates):
    return {key: value and value["mean"] for key, value in rates.items() if key != "threshold"}


# Two subsets. a finds its error at t in (0.3, 0.9], b at t in (0.6, 0.8]; c is left alone up to 0.4, d up to 0.7.
A, B = judged(0, [0.9, 0.3, 0.1], 1), judged(1, [0.8, 0.6], 1)
C, D = judged(2, [0.4, 0.9], -1), judged(3, [0.7, 0.8], -1)
# e finds it at t in (0.65, 1], f never: its first step lies below its second, which is incorrect; g up to 0.2, h up to 0.95.
E, F = judged(4, [0.65], 0, subset="math"), judged(5, [0.1, 0.5], 1, subset="math")
G, H = judged(6, [0.2], -1, subset="math"), judged(7, [0.95, 0.96, 0.97], -1, subset="math")
ROWS = [A, B, C, D, E, F, G, H]


def test_first_errors_by_hand(tmp_path):
    """At 1/2: gsm8k finds a of a, b and leaves d of c, d alone: 1/2 and 1/2, F1 1/2. math finds none of e, f (e's 0.65 is
    above), leaves h of g, h alone: 0 and 1/2, F1 0. Pooled 1/4 and 1/2: 2 · 1/8 / (3/4) = 1/3; mean of subsets 1/4.

    On gsm8k the borders are 0.3, 0.4, 0.6, 0.7, 0.8, 0.9. Found and left alone: up to 0.3 none and both; up to 0.4 a and
    both, F1 2/3; up to 0.6 a and d, 1/2; up to 0.7 both and d, 2/3; up to 0.8 both and none; up to 0.9 a. Of the two
    ranges with 2/3 both are 0.1 wide, but for rounding: 0.35 or 0.65. On math 0.65 finds none, 0.35 none; h is left alone.
    """
    found = statistics(tmp_path, ROWS, "gsm8k")["prm"]
    assert (found["chosen_on"], found["num_unread"]) == ("gsm8k", 0)
    gsm8k, math = found["subsets"]["gsm8k"], found["subsets"]["math"]
    assert [gsm8k[key] for key in ("num_incorrect", "num_correct")] == [2, 2]
    assert means(gsm8k["half"]) == {"erroneous_accuracy": 0.5, "correct_accuracy": 0.5, "f1": 0.5}
    assert means(math["half"]) == {"erroneous_accuracy": 0.0, "correct_accuracy": 0.5, "f1": 0.0}
    assert means(found["all"]["half"]) == pytest.approx(
        {"erroneous_accuracy": 0.25, "correct_accuracy": 0.5, "f1": 1 / 3}
    )
    assert found["mean"]["half"]["mean"] == 0.25
    assert gsm8k["half"]["threshold"] == 0.5
    assert gsm8k["chosen"]["threshold"] in (pytest.approx(0.35), pytest.approx(0.65))
    assert gsm8k["chosen"]["f1"]["mean"] == pytest.approx(2 / 3)
    assert means(math["chosen"]) == {"erroneous_accuracy": 0.0, "correct_accuracy": 0.5, "f1": 0.0}
    assert math["chosen"]["threshold"] == gsm8k["chosen"]["threshold"]
    assert found["mean"]["chosen"]["mean"] == pytest.approx(1 / 3)
    for rates in (gsm8k["half"], found["all"]["chosen"]):
        for key in ("erroneous_accuracy", "correct_accuracy", "f1"):
            assert 0 <= rates[key]["low"] <= rates[key]["mean"] <= rates[key]["high"] <= 1


def test_where_the_lowest_value_stands_by_hand(tmp_path):
    """gsm8k: of a the last of three (its error is the second), of b the last of two, which is its error: 1 of 2. Places
    2/2 and 1/1 are 1 on average, those of the errors 1/2 and 1/1; of c the first of two, of d too: 0.

    math: e's only step is its error, but has no place; f's lowest is the first of two, its error the last; g has one
    step, h's lowest is the first.
    """
    found = statistics(tmp_path, ROWS)["prm"]["subsets"]
    assert found["gsm8k"]["lowest"] == {
        "at_first_error": 0.5, "place_incorrect": 1.0, "place_correct": 0.0, "place_first_error": 0.75,
    }  # fmt: skip
    assert found["math"]["lowest"] == {
        "at_first_error": 0.5, "place_incorrect": 0.0, "place_correct": 0.0, "place_first_error": 1.0,
    }  # fmt: skip


def test_steps_by_subset_beside_what_needs_no_verifier(tmp_path):
    """Steps after the error are not counted. One subset: correct 0.9, incorrect 0.3 | correct 0.4, 0.9; lengths 1, 5 | 7, 1.

    AUROC 1: 0.3 is the lowest of all. Place: the incorrect one is the second, later than two of three, tied with one: 2.5/3.
    Length: 5 is more than 1 and 1 of 1, 7, 1: 2/3. Called incorrect are 0.3 and 0.4, incorrect is 0.3: F1 2/3; all incorrect 2/5.
    The other subset has no incorrect step: no AUROC.
    """
    rows = [judged(0, [0.9, 0.3, 0.1], 1, lengths=[1, 5, 9]), judged(1, [0.4, 0.9], -1, lengths=[7, 1])]
    write_records(tmp_path / "s.jsonl", [*rows, judged(2, [0.8], -1, subset="math")])
    found = asdict(step_statistics(collect(tmp_path / "s.jsonl"), 10, 0)["prm"])["subsets"]
    expected = {
        "num_steps": 4, "base_rate": 0.75, "accuracy": 0.75, "auroc": 1.0, "auroc_position": 2.5 / 3, "auroc_length": 2 / 3,
        "f1_error": 2 / 3, "f1_all_incorrect": 2 / 5, "ece": (0.3 + 0.6 + 0.2) / 4,
    }  # fmt: skip
    assert found["gsm8k"] == pytest.approx(expected)
    assert found["math"]["auroc"] is found["math"]["auroc_position"] is None


def test_what_a_verifier_could_not_read_is_judged_wrongly(tmp_path):
    """A finds its error, an unread solution does not: 1/2; so with the ones to be left alone."""
    rows = [A, judged(8, [], 1, num_steps=2), D, judged(9, [], -1, num_steps=2)]
    found = statistics(tmp_path, rows)["prm"]
    assert means(found["all"]["half"]) == {"erroneous_accuracy": 0.5, "correct_accuracy": 0.5, "f1": 0.5}
    assert found["num_unread"] == 2
    assert found["subsets"] == {}
    assert found["mean"] is None
    assert found["all"]["lowest"]["at_first_error"] == 0.0, "of what was read"


def test_scores_of_solutions_whose_verdict_came_with_them(tmp_path):
    """ProcessBench knows of no answer, but whether it is correct: the last values 0.8 and 0.1 tell the two apart."""
    rows = [judged(0, [0.9, 0.8], -1), judged(1, [0.7, 0.1], 1)]
    rows[0].correct, rows[1].correct = True, False
    write_records(tmp_path / "s.jsonl", rows)
    found = asdict(solution_statistics(collect(tmp_path / "s.jsonl"), {})["prm"])
    assert (found["base_rate"], found["aggregations"]["last"]["auroc"]) == (0.5, 1.0)


def test_one_kind_of_solutions_has_no_f1(tmp_path):
    found = statistics(tmp_path, [A, B])["prm"]["all"]["half"]
    assert means(found) == {"erroneous_accuracy": 0.5, "correct_accuracy": None, "f1": None}


def test_an_interval_of_f1_is_that_of_its_accuracies(tmp_path):
    """200 of 400 incorrect, all found; 120 of 200 correct ones left alone. The share left alone is 0.6 ± 1.96 · sqrt(0.24 / 200)
    = 0.532 to 0.668; F1 is then 2p / (1 + p): 0.695 to 0.801, about 0.75."""
    rows = [judged(i, [0.9, 0.1], 1) for i in range(200)]
    rows += [judged(200 + i, [0.9, 0.9 if i < 120 else 0.1], -1) for i in range(200)]
    rates = statistics(tmp_path, rows, num_bootstrap=2000)["prm"]["all"]["half"]
    assert rates["correct_accuracy"] == pytest.approx(
        {"mean": 0.6, "low": 0.532, "high": 0.668, "standard_error": 0.035}, abs=0.01
    )
    expected = {"mean": 0.75, "low": 0.695, "high": 0.801, "standard_error": 0.027}
    assert rates["f1"] == pytest.approx(expected, abs=0.01)
    assert rates["erroneous_accuracy"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "standard_error": 0.0}


SOLUTIONS = st.lists(
    st.lists(st.integers(0, 10).map(lambda v: v / 10), min_size=1, max_size=4).flatmap(
        lambda values: st.tuples(st.just(values), st.integers(-1, len(values) - 1))
    ),
    min_size=1, max_size=8,
)  # fmt: skip


@given(SOLUTIONS, st.integers(1, 20).map(lambda t: t / 20))
@settings(deadline=None)
def test_a_solution_is_judged_rightly_on_its_range(solutions, threshold):
    for values, first in solutions:
        low, high = hit_range(values, first)
        called = next((i for i, value in enumerate(values) if value < threshold), -1)
        assert (low < threshold <= high) == (called == first)


@given(SOLUTIONS)
@settings(deadline=None)
def test_the_chosen_threshold_is_the_best_one(solutions):
    """On the solutions that it is chosen on no threshold has a higher F1: not 1/2, nor any other."""
    low, high = np.array([hit_range(values, first) for values, first in solutions]).T
    incorrect = np.array([first >= 0 for _, first in solutions])

    def f1(threshold):
        hit = (low < threshold) & (threshold <= high)
        return harmonic_mean(hit[incorrect].mean(), hit[~incorrect].mean())

    chosen = choose_threshold(low, high, incorrect)
    if incorrect.all() or not incorrect.any():
        assert chosen is None
    else:
        assert 0 < chosen <= 1
        assert f1(chosen) >= f1(0.5)
        assert f1(chosen) == max(f1(t / 40) for t in range(1, 41))


def test_the_threshold_lies_in_the_middle_of_the_widest_best_range():
    """Found at (0.1, 0.9], left alone up to 0.7: best on (0.1, 0.7], so 0.4. Neighbouring numbers have no middle."""
    assert choose_threshold(np.array([0.1, -np.inf]), np.array([0.9, 0.7]), np.array([True, False])) == pytest.approx(
        0.4
    )
    above = np.nextafter(0.1, 1)
    at = choose_threshold(np.array([0.1, -np.inf]), np.array([0.9, above]), np.array([True, False]))
    assert at == above


@pytest.mark.parametrize(("neutral", "truth"), [("positive", True), ("negative", False)])
def test_a_neutral_step_is_what_it_is_told_to_be(neutral, truth):
    assert step_truth(StepLabel(rating=0), neutral) is truth
    assert step_truth(StepLabel(rating=1), neutral) is True
    assert step_truth(StepLabel(num_correct=0, num_rollouts=1), neutral) is False


def test_the_stage_without_rankings(tmp_path, capsys):
    """Files of scores alone; the mean of the subsets and all of them stand out; nothing of rankings is there."""
    write_records(tmp_path / "s.jsonl", [*ROWS, judged(8, [], 0, num_steps=1, subset="math")])
    (tmp_path / "r.yaml").write_text(
        f"scores: {tmp_path / 's.jsonl'}\noutput: {tmp_path / 'out'}\nthreshold_subset: gsm8k\n"
    )
    main(["report", "--config", str(tmp_path / "r.yaml"), "--num_bootstrap", "100"])
    out = tmp_path / "out"
    figures = {f"reliability.{end}" for end in ("png", "svg", "pdf")}
    assert {p.name for p in out.iterdir()} == figures | {
        "summary.json", "report.md", "report.html", "browse.html", "tables",
    }  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    assert summary.keys() == {"subject", "steps", "solutions", "first_errors", "config", "files"}
    assert summary["config"]["threshold_subset"] == "gsm8k"
    markdown, html, printed = (
        (out / "report.md").read_text(),
        (out / "report.html").read_text(),
        capsys.readouterr().out,
    )
    for text in (markdown, printed):
        assert re.search(r"prm[ |]+gsm8k[ |]+0\.500[ |]+2[ |]+2[ |]+50\.0 %[ |]+50\.0 %[ |]+50\.0 %", text)
        assert "(chosen here)" in text
    assert "| **prm** | **mean of subsets** | **0.500** |" in markdown
    assert "prm 1" in markdown, "what could not be read is named"
    assert html.count("data:image/svg+xml;base64,") == 4, "reliability, wide and narrow, light and dark"
    assert "Position of the lowest value" in html
    assert "Accuracy against N" not in html + markdown


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (ROWS, {"threshold_subset": "olympiad"}, r"'olympiad': no solution has it; known: \['gsm8k', 'math'\]"),
        ([A, B, G], {"threshold_subset": "gsm8k"}, "gsm8k: choosing a threshold needs solutions with and without an error"),
        ([judged(0, [0.5], 0, num_steps=2)], {}, "so there is nothing to report"),
        ([judged(0, [0.5], 0, num_steps=2)], {"threshold_subset": "gsm8k"}, "no verifier has a value per step"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_writes_nothing(tmp_path, rows, options, message):
    write_records(tmp_path / "s.jsonl", rows)
    with pytest.raises(InputError, match=message):
        report(output=tmp_path / "out", scores=tmp_path / "s.jsonl", **options)
    assert not (tmp_path / "out").exists()


def test_nothing_to_report_on(tmp_path):
    with pytest.raises(InputError, match="expected rankings, scored solutions or searches"):
        report(output=tmp_path / "out")
    with pytest.raises(InputError, match="threshold_subset: gsm8k: expected scores"):
        report(tmp_path, output=tmp_path / "out", threshold_subset="gsm8k")
