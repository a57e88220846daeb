"""Made-up verifiers of a known quality: the laws that hold of them."""

import json
from statistics import mean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.__main__ import main
from sampling.selection.candidates import MISSING, Candidates, Sample
from sampling.selection.ranking import bind_rules, default_rules, rank_problem
from sampling.selection.rules import Simulated
from stepverify.jsonl import read_records, write_records
from stepverify.records import Ranking, Solution


def samples_of(correct):
    return [Sample(str(i), "1", "1" if r else "2", r, 1, {}) for i, r in enumerate(correct)]


def simulated_curves(area, base_rate, samples, classes, sizes, top_k=(), seed=0):
    candidates = Candidates(samples=samples, classes=classes, sizes=sizes, base_rate=base_rate, seed=seed)
    rules = [rule for rule in default_rules(top_k, [area]) if isinstance(rule, Simulated)]
    return {rule.name.partition("/")[2]: rule.curve(candidates) for rule in rules}


@pytest.mark.slow
@pytest.mark.parametrize("area", [0.5, 0.66, 0.8, 0.95])
def test_of_two_samples_the_correct_one_is_chosen_as_often_as_the_area_says(area):
    """That is what the area is. 500 problems of 20 draws: a standard error of 0.005 at most; votes of two decide alike."""
    two = samples_of([True, False])
    found = [simulated_curves(area, 0.3, two, [0, 1], [1, 2], seed=seed) for seed in range(500)]
    for rule in ("best_of_n", "weighted_vote"):
        probabilities = np.mean([curves[rule] for curves in found], axis=0)
        # Without knowledge both votes weigh the same, and a tie is split evenly: 0.5, exactly.
        assert probabilities == pytest.approx([0.5, area], abs=0.02)


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.floats(0.01, 0.99), st.integers(0, 9))
@settings(deadline=None, max_examples=25)
def test_knowing_nothing_is_the_majority_and_knowing_all_the_oracle(correct, base_rate, seed):
    samples, classes = samples_of(correct), [int(not r) for r in correct]
    total = [len(correct)]
    candidates = Candidates(samples=samples, classes=classes, sizes=total)
    truth = rank_problem("p", candidates, bind_rules(default_rules(), {})).curves
    nothing = simulated_curves(0.5, base_rate, samples, classes, total, seed=seed)
    assert nothing["weighted_vote"] == pytest.approx(truth["majority"])
    everything = simulated_curves(1 - 1e-12, base_rate, samples, classes, total, [1], seed=seed)
    for rule in ("best_of_n", "weighted_vote", "top_1"):
        assert everything[rule] == pytest.approx(truth["oracle"])


def test_a_better_verifier_solves_more_with_the_same_noise():
    correct, classes = [True, False, False, True, False, False], [0, 1, 1, 0, 2, None]
    found = [simulated_curves(a, 1 / 3, samples_of(correct), classes, [6], seed=1) for a in (0.5, 0.6, 0.7, 0.8, 0.9)]
    chosen = [curves["best_of_n"][0] for curves in found]
    assert chosen == sorted(chosen)
    assert chosen[-1] - chosen[0] > 0.2


def test_a_missing_sample_is_chosen_last():
    there, missing = samples_of([True]), [MISSING] * 3
    curves = simulated_curves(0.5, 0.5, there + missing, [0, None, None, None], [4], [2])
    assert {rule: curve[0] for rule, curve in curves.items()} == pytest.approx(
        {"best_of_n": 1, "weighted_vote": 1, "top_2": 1}
    )


@pytest.fixture
def labelled(tmp_path):
    """Graded, not scored: four problems of six samples, a third of them correct."""
    rows = [
        Solution(
            id=f"p{p}#{i}", problem_id=f"p{p}", problem=f"Question {p}", answer="1", steps=["a"],
            predicted="1" if i < 2 else str(i), correct=i < 2,
        )
        for p in range(4) for i in range(6)
    ]  # fmt: skip
    write_records(tmp_path / "labelled" / "part-00000.jsonl", rows)
    return tmp_path / "labelled"


def test_the_stage_asks_how_good_a_verifier_must_be(labelled, tmp_path, capsys):
    """Before there is one: samples need grades, no scores. The base rate is that of all samples, 1/3."""
    main(["rank", "--input", str(labelled), "--output", str(tmp_path / "out"), "--simulated", "[0.6, 0.9]"])
    assert "simulated_0.9/weighted_vote" in capsys.readouterr().out
    first = next(iter(read_records(tmp_path / "out", Ranking)))
    rules = [f"simulated_{area}/{rule}" for area in ("0.6", "0.9") for rule in ("best_of_n", "weighted_vote")]
    assert [*first.curves] == ["pass@1", "majority", "shortest", *rules, "oracle"]
    assert first.choices.keys() == {"pass@1", "majority", "shortest", "oracle"}
    main(["report", "--input", str(tmp_path / "out"), "--output", str(tmp_path / "report"), "--num_bootstrap", "20"])
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    assert summary["auroc_per_problem"] == {"majority": 1.0, "shortest": 0.5}, "two votes against one, steps alike"
    assert "| 1.000 |" in (tmp_path / "report/report.md").read_text()
    accuracy = summary["accuracy"]
    rankings = list(read_records(tmp_path / "out", Ranking))
    for rule in rules:
        assert accuracy[rule]["mean"] == pytest.approx(mean(r.curves[rule][-1] for r in rankings))
    assert accuracy["simulated_0.9/weighted_vote"]["mean"] > accuracy["simulated_0.6/best_of_n"]["mean"]


@pytest.mark.parametrize("areas", ["[0.4, 0.9]", "[1.0]"])
def test_areas_that_no_verifier_has_are_refused(labelled, tmp_path, areas, capsys):
    with pytest.raises(SystemExit):
        main(["rank", "--input", str(labelled), "--output", str(tmp_path / "out"), "--simulated", areas])
    assert "simulated: expected AUROCs of 0.5 or more and less than 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
