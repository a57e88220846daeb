import itertools
import json
import re
from dataclasses import asdict
from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sampling.report import first_errors, quality
from sampling.report.accuracy import Table, read_table, rule_label, split_rule, summarise
from sampling.report.collect import collect, first_error, step_truth
from sampling.report.figures import spread_out
from sampling.stages.report import report
from stepverify.aggregate import AGGREGATIONS, aggregate
from stepverify.jsonl import write_records
from stepverify.records import InputError, Ranking, Solution, StepLabel
from stepverify.statistics import (
    aggregate_all,
    auroc,
    bootstrap_means,
    brier,
    calibration_error,
    f1,
    ranks,
    reliability,
    resampled_auroc,
)


def plain(statistics):
    """Verifier → its statistics as JSON values."""
    return {name: asdict(found) for name, found in statistics.items()}


def step_statistics(collected):
    return plain(quality.step_statistics(collected, 10, 0))


def step_order_statistics(collected, num_bootstrap, seed):
    return plain(quality.step_order_statistics(collected, num_bootstrap, seed))


def solution_statistics(collected, used):
    return plain(quality.solution_statistics(collected, used))


def first_error_statistics(collected, *options):
    return plain(first_errors.first_error_statistics(collected, *options))


RULES = ["pass@1", "majority", "prm/best_of_n", "prm/weighted_vote", "oracle"]


def rankings(folder, num_problems=20, sizes=(1, 4)):
    """Problem i: pass@1 i / 20; majority, at N = 4, correct from the 10th problem on; the verifier from the 6th."""
    rows = []
    for i in range(num_problems):
        last = {"pass@1": i / 20, "majority": float(i >= 10), "prm/best_of_n": float(i >= 6), "oracle": 1.0}
        last["prm/weighted_vote"] = last["majority"]
        curves = {rule: [i / 20] * (len(sizes) - 1) + [last[rule]] for rule in RULES}
        rows.append(Ranking(problem_id=f"p{i}", num_samples=4, sizes=list(sizes), curves=curves, answer="1"))
    write_records(folder / "part-00000.jsonl", rows)
    return folder


def test_bootstrap_means_are_means_of_resamples():
    """With three problems of values 0, 1, 4 a resampled mean is a third of a sum of three of them.

    The mean of the means nears 5/3; their variance is that of the values over 3: 26/9 / 3.
    """
    means = bootstrap_means(np.array([[0.0], [1.0], [4.0]]), 20_000, seed=0)[:, 0]
    sums = {a + b + c for a in (0, 1, 4) for b in (0, 1, 4) for c in (0, 1, 4)}
    assert {round(3 * m) for m in means} == sums
    assert means.mean() == pytest.approx(5 / 3, abs=0.04)
    assert means.var() == pytest.approx(26 / 27, abs=0.05)


def test_bootstrap_columns_share_resamples():
    values = np.random.default_rng(0).random((30, 1))
    means = bootstrap_means(np.hstack([values, values + 1, -values]), 50, seed=3)
    assert means[:, 1] - means[:, 0] == pytest.approx(1)
    assert means[:, 2] == pytest.approx(-means[:, 0])


def test_interval_of_a_proportion():
    """Of 400 problems half are solved: the interval is 0.5 ± 1.96 · sqrt(0.25 / 400) = 0.5 ± 0.049."""
    values = np.repeat([0.0, 1.0], 200)[:, None, None]
    found = asdict(summarise(Table(["majority"], [8], 3200, values), 4000, seed=0))
    assert found["accuracy"]["majority"] == pytest.approx({"mean": 0.5, "low": 0.451, "high": 0.549}, abs=0.006)


def test_paired_difference_is_narrower_than_two_intervals(tmp_path):
    """The verifier solves problems 6 to 9 on top of majority's: 4 of 20, never fewer. Equal rules differ by 0."""
    found = asdict(summarise(read_table(rankings(tmp_path)), 2000, seed=0))
    paired = found["paired"]["prm/best_of_n"]
    assert (paired["versus"], paired["difference"]) == ("majority", pytest.approx(0.2))
    assert 0 <= paired["low"] < 0.2 < paired["high"] < 0.45
    assert paired["high"] - paired["low"] < found["accuracy"]["majority"]["high"] - found["accuracy"]["majority"]["low"]
    assert found["paired"]["prm/weighted_vote"] == {"versus": "majority", "difference": 0.0, "low": 0.0, "high": 0.0}
    assert found["paired"]["majority"]["versus"] == "pass@1"
    assert found["paired"]["majority"]["difference"] == pytest.approx(0.5 - 0.475)
    assert found["paired"].keys() == {"majority", "prm/best_of_n", "prm/weighted_vote"}


@pytest.mark.parametrize("change", [{"sizes": [1, 8]}, {"curves": {"majority": [0.0, 0.0]}}])
def test_rankings_that_do_not_belong_together_are_refused(tmp_path, change):
    path = rankings(tmp_path) / "part-00000.jsonl"
    line = json.loads(path.read_text().splitlines()[0]) | {"problem_id": "odd"} | change
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    with pytest.raises(InputError, match=r"of odd: .*, of p0: "):
        read_table(tmp_path)


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


def solution(index, scores, *, correct=True, labels=None, num_steps=2, num_tokens=10, predicted="1"):
    return Solution(
        id=f"p#{index}", problem_id="p", problem="Question", answer="1", predicted=predicted, correct=correct,
        steps=["s"] * num_steps, token_ids=[1] * num_tokens, scores=scores,
        step_labels=labels and [r if r is None else StepLabel(rating=r) for r in labels],
    )  # fmt: skip


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
    assert found["prm"]["interval"] == found["worse"]["interval"] == {"low": 0.0, "high": 1.0}
    assert found["prm"]["above"] == {
        "position": {"difference": -0.25, "low": -1.0, "high": 0.0},
        "length": {"difference": 0.25, "low": -0.5, "high": 0.5},
    }
    assert found["worse"]["above"].keys() == {"position", "length", "prm"}
    assert found["worse"]["above"]["prm"] == {"difference": -0.5, "low": -1.0, "high": 1.0}
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
@settings(deadline=None, max_examples=50)
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


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
@settings(deadline=None)
def test_labels_are_moved_apart_no_further_than_needed(heights):
    heights = sorted(heights)
    moved = spread_out(heights, 0.05)
    assert all(b - a >= 0.05 - 1e-9 for a, b in itertools.pairwise(moved))
    assert sum(moved) == pytest.approx(sum(heights))
    if all(b - a >= 0.05 for a, b in itertools.pairwise(heights)):
        assert moved == pytest.approx(heights)


def test_rule_labels():
    assert [rule_label(r) for r in ("pass@1", "shortest", "majority", "a/b/best_of_n", "prm/weighted_vote", "p/top_3")] == [
        "pass@1", "shortest", "majority vote", "a/b, best of N", "prm, weighted vote", "p, vote of the best 3",
    ]  # fmt: skip
    assert [split_rule(r) for r in ("oracle", "a/b/top_3", "a/b/top_3/min")] == [
        ("", "oracle", ""), ("a/b", "top_3", ""), ("a/b", "top_3", "min"),
    ]  # fmt: skip


def test_one_table_of_every_rule_under_every_aggregation(tmp_path, capsys):
    """Ten verifiers: each has a panel. ``last`` solves all 20 problems and majority none: marked; ``min`` a tenth more."""
    curves = {"pass@1": [0.1], "majority": [0.0]}
    curves |= {f"v{i}/{kind}": [0.5] for i in range(10) for kind in ("best_of_n", "top_3")} | {"oracle": [1.0]}
    rows = []
    for p in range(20):
        compared = {
            f"v{i}/best_of_n/{how}": [x] for i in range(10) for how, x in (("min", float(p == 0)), ("last", 1.0))
        }
        rows.append(Ranking(problem_id=f"p{p}", num_samples=4, sizes=[4], curves=curves | compared))
    write_records(tmp_path / "in" / "part-00000.jsonl", rows)
    report(tmp_path / "in", output=tmp_path / "out", num_bootstrap=200)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["accuracy"].keys() == curves.keys() == summary["curves"].keys()
    found = summary["every_aggregation"]["v3/best_of_n"]
    assert found["last"]["paired"] == {"versus": "majority", "difference": 1.0, "low": 1.0, "high": 1.0}
    assert found["min"]["mean"] == pytest.approx(0.05)
    markdown = (tmp_path / "out/report.md").read_text()
    assert "| v3, best of N | 5.0 (0.0 – 15.0) | 100.0 (100.0 – 100.0)\\* |" in markdown
    assert "Every rule under every aggregation" not in capsys.readouterr().out
    assert (tmp_path / "out/accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_report(tmp_path, capsys):
    """All four files; names are escaped; the page asks for nothing over the network."""
    data = rankings(tmp_path / "in")
    aggregation = {"prm": {"how": "min", "chosen_on": "validation"}}
    validation = {"num_problems": 3, "n": 4, "best_of_n": {"prm": {"prod": 0.25, "min": 0.5}}}
    summary = {"aggregation": aggregation, "validation": validation}
    manifest = {"stage": "rank", "config": {}, "inputs": {}, "finished": True, "summary": summary}
    (data / "manifest.json").write_text(json.dumps(manifest))
    rows = [
        solution(i, {"prm": [0.1 * i, 0.9], "<b>orm": [0.08 * i]}, correct=i > 4, labels=[1, 1 if i > 4 else -1])
        for i in range(10)
    ]
    write_records(tmp_path / "scored.jsonl", rows)
    report(data, output=tmp_path / "out", scores=tmp_path / "scored.jsonl", num_bootstrap=100)
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == {"summary.json", "accuracy.png", "report.md", "report.html"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["accuracy"].keys() == set(RULES)
    assert summary["accuracy"]["prm/best_of_n"]["mean"] == pytest.approx(0.7)
    assert [point["n"] for point in summary["curves"]["majority"]] == [1, 4]
    assert [summary[key] for key in ("num_problems", "num_samples", "num_solutions")] == [20, 4, 80]
    assert summary["aggregation"] == aggregation
    assert summary["solutions"]["prm"]["used"] == "min"
    assert (out / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    html, markdown = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert not re.search(r"https?://|<script|url\(", html)
    assert html.count("data:image/png;base64,") == 4, "two figures, light and dark"
    assert "&lt;b&gt;orm" in html
    assert "<b>orm" not in html
    for text in (markdown, html):
        assert "70.0 %" in text
        assert "validation problems" in text
    assert "70.0 %" in capsys.readouterr().out
    # Both verifiers scored the same solutions: what needs no verifier stands once.
    assert [markdown.count(f"| ({row}) |") for row in ("shortest", "correct or not")] == [1, 1]


def test_report_needs_neither_scores_nor_a_manifest(tmp_path):
    report(rankings(tmp_path / "in", num_problems=1, sizes=(4,)), output=tmp_path / "out", num_bootstrap=10)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["aggregation"] == {}
    assert "steps" not in summary
    assert summary["accuracy"]["oracle"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    with pytest.raises(InputError, match="num_bootstrap"):
        report(tmp_path / "in", output=tmp_path / "out", num_bootstrap=0)


def test_a_solution_score_may_be_a_tiny_product(tmp_path):
    """0.1 to the 400th is 0.0 in double precision; its logarithm still ranks, and nothing becomes NaN."""
    rows = [solution(i, {"prm": [0.1] * (400 + i)}, correct=i == 0, num_steps=400 + i) for i in range(2)]
    write_records(tmp_path / "s.jsonl", rows)
    product = solution_statistics(collect(tmp_path / "s.jsonl"), {"prm": "prod"})["prm"]["aggregations"]["prod"]
    assert exp(400 * log(0.1)) == 0.0
    assert product["auroc"] == 1.0
    assert product["brier"] == pytest.approx(0.5)
    json.dumps(product, allow_nan=False)
