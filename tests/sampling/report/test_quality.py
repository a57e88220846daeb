"""Statistics of scores: of solutions, steps and first errors, by hand and by torchmetrics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sampling.report import first_errors, quality
from sampling.report.collect import collect, first_error, step_truth
from sampling.stages.report import report
from stepverify.aggregate import AGGREGATIONS, aggregate
from stepverify.jsonl import write_records
from stepverify.records import StepLabel
from stepverify.statistics import (
    aggregate_all,
    auroc,
    brier,
    calibration_error,
    f1,
    ranks,
    reliability,
    resampled_auroc,
)
from tests.helpers.scored import plain, solution, solution_statistics


def step_statistics(collected):
    return plain(quality.step_statistics(collected, 10, 0))


def step_order_statistics(collected, num_bootstrap, seed):
    return plain(quality.step_order_statistics(collected, num_bootstrap, seed))


def first_error_statistics(collected, *options):
    return plain(first_errors.first_error_statistics(collected, *options))


@pytest.mark.parametrize(
    ("label", "truth"),
    [
        (None, None), (StepLabel(rating=1), True), (StepLabel(rating=0), True), (StepLabel(rating=-1), False),
        (StepLabel(num_correct=0, num_rollouts=8), False), (StepLabel(num_correct=1, num_rollouts=8), True),
    ],
)  # fmt: skip
def test_step_truth(label, truth):
    assert step_truth(label) is truth


def test_first_error():
    assert first_error([True, False, False]) == 1
    assert first_error([True, True]) == -1
    assert first_error([True, None, False]) is None, "the unknown step may be the first error"
    assert first_error([False, None]) == 0
    assert first_error([True, None]) is None


def test_step_statistics_by_hand(tmp_path):
    """Three solutions, seven labelled steps; a step is judged correct at 0.5 or more.

    a: 0.9 0.2 of correct, incorrect: all judged correct; first error 1 found.
    b: 0.5 0.8 0.6 of correct, neutral, incorrect: the last judged incorrectly; first error 2, none seen.
    c: 0.4 0.7 (third step unlabelled) of correct, correct: the first judged incorrectly; whether there is an error is
    unknown, so it is no solution of the first-error count. d: all correct, 0.9 1.0: none found, correctly.

    Accuracy 7 of 9. Incorrect steps: judged 0.2, 0.4, of which 0.2 is; really 0.2, 0.6: F1 = 2·1 / (2·1 + 1 + 1) = 1/2.
    AUROC: of 7 correct × 2 incorrect pairs, 0.2 is below all 7; 0.6 above 0.5 and 0.4 only, below 5: 12 of 14. All called incorrect:
    F1 = 2·2 / (2 + 9). Places: the incorrect ones are 1 and 2, the correct ones 0, 0, 1, 0, 1, 0, 1: the incorrect 1 is later than
    four and ties with three, the incorrect 2 later than all: 5.5 + 7 of 14. All steps are equally long: 1/2.
    First error: a, d of a, b, d; 1/2 with an error, 1 without: harmonic mean 2/3.
    """
    a = solution(0, {"prm": [0.9, 0.2]}, labels=[1, -1])
    b = solution(1, {"prm": [0.5, 0.8, 0.6]}, labels=[1, 0, -1], num_steps=3)
    c = solution(2, {"prm": [0.4, 0.7, 0.1]}, labels=[1, 1, None], num_steps=3)
    d = solution(3, {"prm": [0.9, 1.0], "orm": [0.3]}, labels=[1, 1])
    write_records(tmp_path / "s.jsonl", [a, b, c, d])
    steps = step_statistics(collect(tmp_path / "s.jsonl"))
    assert steps.keys() == {"prm"}, "an outcome verifier says nothing of a step"
    found = steps["prm"]
    assert found["num_steps"] == 9
    expected = {
        "base_rate": 7 / 9, "accuracy": 7 / 9, "auroc": 12 / 14, "f1_error": 0.5, "f1_all_incorrect": 4 / 11,
        "auroc_position": 12.5 / 14, "auroc_length": 0.5,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    first = first_error_statistics(collect(tmp_path / "s.jsonl"), None, 10, 0)["prm"]["all"]
    assert (first["num_incorrect"], first["num_correct"]) == (2, 1)
    rates = {key: first["half"][key]["mean"] for key in ("erroneous_accuracy", "correct_accuracy", "f1")}
    assert rates == pytest.approx({"erroneous_accuracy": 0.5, "correct_accuracy": 1.0, "f1": 2 / 3})
    gaps = [b["count"] * abs(b["value"] - b["correct"]) for b in found["reliability"]]
    assert found["ece"] == pytest.approx(sum(gaps) / 9, abs=1e-6), "the error sampled is the error given"


def test_intervals_of_the_order_of_steps_by_hand(tmp_path):
    """Problem p: steps correct 0.9, incorrect 0.2; problem q: correct 0.3, incorrect 0.8. Each problem has 2 solutions of them.

    In all, of 4 correct × 4 incorrect pairs 0.9 is above all 4, 0.3 above the two 0.2: (2·4 + 2·2) / 16 = 3/4. A resample is p
    and q, as the sample; p twice: 1; q twice: 0. So 0 and 1 are the ends of the interval. The second verifier says the
    opposite of the first, so its AUROC is 1 - AUROC and the difference 1 - 2·AUROC of each resample: -1/2, from -1 to 1.
    The incorrect step is the second: place alone has AUROC 1 in every resample; all are equally long: 1/2.
    """
    rows = []
    for number, (problem, correct, incorrect) in enumerate([("p", 0.9, 0.2), ("q", 0.3, 0.8)] * 2):
        scores = {"prm": [correct, incorrect], "worse": [1 - correct, 1 - incorrect], "orm": [0.5]}
        rows.append(replace(solution(number, scores, labels=[1, -1]), problem_id=problem))
    unread = replace(rows[0], id="p#9", scores={"prm": [], "worse": [], "orm": []})
    write_records(tmp_path / "s.jsonl", [*rows, unread])
    found = step_order_statistics(collect(tmp_path / "s.jsonl"), 200, 0)
    assert found.keys() == {"prm", "worse"}
    area, above = found["prm"]["interval"], found["prm"]["above"]
    assert (
        (area["low"], area["high"]) == (found["worse"]["interval"]["low"], found["worse"]["interval"]["high"]) == (0, 1)
    )
    # 1, 3/4 and 0 with probabilities 1/4, 1/2 and 1/4: mean 5/8, variance 17/32 - 25/64 = (3/8)².
    error = area["standard_error"]
    assert error == pytest.approx(3 / 8, abs=0.04)
    assert above["position"] == pytest.approx({"difference": -0.25, "low": -1, "high": 0, "standard_error": error})
    assert above["length"] == pytest.approx({"difference": 0.25, "low": -0.5, "high": 0.5, "standard_error": error})
    assert found["worse"]["above"].keys() == {"position", "length", "prm"}
    expected = {"difference": -0.5, "low": -1.0, "high": 1.0, "standard_error": 2 * error}
    assert found["worse"]["above"]["prm"] == pytest.approx(expected)
    assert found == step_order_statistics(collect(tmp_path / "s.jsonl"), 200, 0), "the same seed, the same intervals"


def test_steps_that_are_all_correct_have_no_order(tmp_path):
    write_records(tmp_path / "s.jsonl", [solution(0, {"prm": [0.9, 0.2]}, labels=[1, 1])])
    found = step_order_statistics(collect(tmp_path / "s.jsonl"), 20, 0)
    assert found == {"prm": {"interval": None, "above": {}}}
    report(output=tmp_path / "out", scores=tmp_path / "s.jsonl", num_bootstrap=20)
    assert "| … its interval |  |" in (tmp_path / "out" / "report.md").read_text()


def test_verifiers_of_other_steps_are_not_compared(tmp_path):
    """The second one could not read the second solution."""
    rows = [solution(i, {"prm": [0.9, 0.2], "late": [0.9, 0.2][: 2 - 2 * i]}, labels=[1, -1]) for i in range(2)]
    write_records(tmp_path / "s.jsonl", rows)
    found = step_order_statistics(collect(tmp_path / "s.jsonl"), 20, 0)
    assert found["late"]["above"].keys() == {"position", "length"}


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=1, max_size=12))
@settings(deadline=None)
def test_an_area_with_weights_is_that_of_repeated_scores(rows):
    scores, correct, weights = (np.array(column) for column in zip(*rows, strict=True))
    (found,) = resampled_auroc(scores.astype(float), correct, np.arange(len(scores)), weights[None])
    repeated = auroc(np.repeat(scores, weights), np.repeat(correct, weights))
    assert np.isnan(found) if repeated is None else found == pytest.approx(repeated)


def test_solution_statistics_by_hand(tmp_path):
    """Scores that fall with length: 0.9 (1 step), 0.8² (2), 0.7³ (3); correct, incorrect, correct.

    Brier of the product: (0.1² + 0.64² + (1 - 0.343)²) / 3. AUROC: of 2 × 1 pairs 0.9 > 0.64 only: 1/2.
    Spearman with steps -1, with tokens (30, 20, 10) +1.
    """
    rows = [
        solution(i, {"prm": [1 - 0.1 * n] * n, "orm": [0.5]}, correct=i != 1, num_steps=n, num_tokens=40 - 10 * n)
        for i, n in enumerate((1, 2, 3))
    ]
    write_records(tmp_path / "s.jsonl", rows)
    collected = collect(tmp_path / "s.jsonl")
    assert step_statistics(collected) == {}
    solutions = solution_statistics(collected, {"prm": "prod"})
    product = solutions["prm"]["aggregations"]["prod"]
    assert product["brier"] == pytest.approx((0.1**2 + 0.64**2 + (1 - 0.7**3) ** 2) / 3)
    assert product["auroc"] == pytest.approx(0.5)
    assert product["ece"] == pytest.approx((0.1 + 0.64 + 1 - 0.7**3) / 3), "each score in a bin of its own"
    assert (product["spearman_steps"], product["spearman_tokens"]) == pytest.approx((-1, 1))
    assert product["pearson_steps"] == pytest.approx(np.corrcoef([0.9, 0.64, 0.343], [1, 2, 3])[0, 1])
    assert solutions["prm"]["truth"]["pearson_steps"] == pytest.approx(0)
    assert solutions["prm"]["used"] == "prod"
    assert solutions["prm"]["minimum_position"] == {"mean": 0.0, "at_first": 1.0, "at_last": 0.0}
    orm = solutions["orm"]
    assert orm["minimum_position"] is None
    assert orm["aggregations"].keys() == {"last"}
    assert orm["aggregations"]["last"]["spearman_steps"] is None, "a constant correlates with nothing"
    assert orm["aggregations"]["last"]["auroc"] == pytest.approx(0.5)
    assert orm["aggregations"]["last"]["ece"] == pytest.approx(2 / 3 - 0.5)


def test_order_within_problems_by_hand(tmp_path):
    """Easy problem: correct 0.8, correct 0.9, incorrect 0.7: area 1. Hard one: correct 0.2, incorrect 0.1, incorrect 0.3: 1/2. One all incorrect.

    Within problems (1 + 1/2) / 2; over all: correct 0.8, 0.9, 0.2 against 0.7, 0.1, 0.3, 0.9: 3 + 3.5 + 1 of 12.
    Fewest steps: easy correct 1, correct 2, incorrect 3: 1; hard correct 1, incorrect 2, incorrect 3: 1; over all correct 1, 2, 1 against
    3, 2, 3, 1: 3.5 + 2.5 + 3.5 of 12.
    """
    given = {"easy": ((0.8, 1), (0.9, 1), (0.7, 0)), "hard": ((0.2, 1), (0.1, 0), (0.3, 0)), "lost": ((0.9, 0),)}
    rows = [
        replace(
            solution(0, {"orm": [value]}, correct=bool(correct), num_steps=i + 1), id=f"{name}#{i}", problem_id=name
        )
        for name, several in given.items()
        for i, (value, correct) in enumerate(several)
    ]
    write_records(tmp_path / "s.jsonl", rows[::2] + rows[1::2])  # solutions of a problem need not stand together
    orm = solution_statistics(collect(tmp_path / "s.jsonl"), {})["orm"]
    found = orm["aggregations"]["last"]
    assert (found["auroc"], found["auroc_per_problem"]) == pytest.approx((7.5 / 12, 0.75))
    assert orm["shortest"] == pytest.approx({"auroc": 9.5 / 12, "auroc_per_problem": 1.0})


def test_one_value_for_one_step_is_no_judgement_of_steps(tmp_path):
    """An outcome verifier has one value a solution, so a solution of one step looks judged step by step."""
    rows = [
        solution(0, {"orm": [0.9], "prm": [0.9]}, num_steps=1, labels=[1]),
        solution(1, {"orm": [0.2], "prm": [0.8, 0.1]}, labels=[1, -1]),
    ]
    write_records(tmp_path / "s.jsonl", rows)
    steps = step_statistics(collect(tmp_path / "s.jsonl"))
    assert steps.keys() == {"prm"}
    assert steps["prm"]["num_steps"] == 3


def test_a_solution_without_answer_is_incorrect_whatever_its_label(tmp_path):
    rows = [solution(0, {"orm": [1.0]}), solution(1, {"orm": [1.0]}, predicted=None)]
    write_records(tmp_path / "s.jsonl", rows)
    assert solution_statistics(collect(tmp_path / "s.jsonl"), {})["orm"]["base_rate"] == 0.5


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=5), min_size=1, max_size=6))
@settings(deadline=None)
def test_all_aggregations_at_once_are_those_of_single_solutions(solutions):
    found = aggregate_all(np.array([v for values in solutions for v in values]), np.array([*map(len, solutions)]))
    assert found.keys() == set(AGGREGATIONS)
    for how, scores in found.items():
        assert scores.tolist() == pytest.approx([aggregate(values, how) for values in solutions])


@given(st.lists(st.sampled_from([-5.0, 0.0, 0.25, 0.5, 7.0]), min_size=1, max_size=20))
@settings(deadline=None)
def test_ranks_average_over_equals(values):
    expected = [sum(o < v for o in values) + (sum(o == v for o in values) + 1) / 2 for v in values]
    assert ranks(np.array(values)).tolist() == expected


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
@settings(deadline=None)
def test_reliability_keeps_every_value(pairs):
    values, correct = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    bins = reliability(values, correct)
    assert sum(b.count for b in bins) == len(pairs)
    assert sum(b.count * b.value for b in bins) == pytest.approx(values.sum())
    assert sum(b.count * b.correct for b in bins) == pytest.approx(correct.sum())


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=1, max_size=12), st.integers(0, 9)
)
@settings(deadline=None)
def test_an_area_of_resampled_groups_is_that_of_its_members(rows, seed):
    """A group that counts k times counts all its scores k times."""
    scores, correct, groups = (np.array(column) for column in zip(*rows, strict=True))
    counts = np.random.default_rng(seed).integers(0, 3, size=(2, 4))
    found = resampled_auroc(scores.astype(float), correct, groups, counts)
    expected = resampled_auroc(scores.astype(float), correct, np.arange(len(scores)), counts[:, groups])
    assert found == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=1, max_size=60))
@settings(deadline=None, max_examples=25)
def test_measures_are_those_of_torchmetrics(pairs):
    """Values between the edges of the bins, where the two put a value into the same bin; many of them equal."""
    import torch
    from torchmetrics.functional import classification

    values, correct = np.array([(p[0] + 0.5) / 100 for p in pairs]), np.array([p[1] for p in pairs])
    given_, target = torch.tensor(values), torch.tensor(correct).long()
    if correct.all() or not correct.any():
        assert auroc(values, correct) is None
    else:
        assert auroc(values, correct) == pytest.approx(float(classification.binary_auroc(given_, target)), abs=1e-6)
    expected = classification.binary_f1_score((given_ < 0.5).long(), 1 - target)
    assert f1(values < 0.5, ~correct) == pytest.approx(float(expected), abs=1e-6)
    expected = classification.binary_calibration_error(given_, target, n_bins=15, norm="l1")
    assert calibration_error(reliability(values, correct)) == pytest.approx(float(expected), abs=1e-6)
    expected = torch.nn.functional.mse_loss(given_, target.double())
    assert brier(values, correct) == pytest.approx(float(expected))
