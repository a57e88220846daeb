"""Calibrations are fitted on some problems and measured on others."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.selection.calibration import LEARNED, Calibration, summaries
from sampling.selection.candidates import Candidates, Sample
from sampling.selection.crossfit import Asked, calibrate_verifier, cross_fit, divide_positions, fit_learned
from sampling.selection.folds import folds_of
from sampling.selection.rules import BestOfN, WeightedVote
from stepverify.aggregate import AGGREGATIONS, aggregate
from stepverify.calibration import METHODS, Isotonic, Platt, Temperature, map_by_position
from stepverify.statistics import brier
from tests.helpers.judged import judged, votes


@given(st.integers(0, 40), st.integers(2, 10), st.integers(0, 3))
def test_folds_have_equal_sizes_whatever_the_order(number, num_folds, seed):
    ids = [f"p{i}" for i in range(number)]
    folds = folds_of(ids, seed, num_folds)
    assert dict(zip(ids[::-1], folds_of(ids[::-1], seed, num_folds), strict=True)) == dict(zip(ids, folds, strict=True))
    sizes = np.bincount(folds, minlength=num_folds)
    assert number < num_folds or sizes.max() - sizes.min() <= 1


@settings(max_examples=10)
@given(st.integers(0, 100), st.sampled_from(METHODS), st.booleans(), st.integers(0, 2))
def test_no_problem_is_measured_with_what_it_has_fitted(seed, method, steps, fold):
    """Other labels in one fold change every map but the one that its own problems are measured with."""
    of = judged(seed, num_problems=60, steps=steps)
    asked = Asked(method=method, target="steps" if steps else "solutions", aggregation="min")
    mine, mine_values = of.folds == fold, np.repeat(of.folds == fold, of.counts)
    other = dataclasses.replace(
        of,
        correct=np.where(mine, np.arange(len(of.correct)) % 2 == 0, of.correct),
        truths=None if of.truths is None else np.where(mine_values, np.arange(len(of.truths)) % 2, of.truths),
    )
    before, after, values, unfitted = cross_fit(of, asked)
    _, changed, other_values, _ = cross_fit(other, asked)
    assert after.keys() | unfitted.keys() == {*AGGREGATIONS, LEARNED}
    assert "min" in after
    assert all("expected above 0" in reason for reason in unfitted.values())
    for how in after.keys() & changed.keys():
        np.testing.assert_array_equal(after[how][mine], changed[how][mine])
        assert not np.array_equal(after[how][~mine], changed[how][~mine])
    np.testing.assert_array_equal(values[mine_values], other_values[mine_values])
    assert np.array_equal(values, of.values) != steps
    assert before["min"] == pytest.approx(np.minimum.reduceat(of.values, np.cumsum(of.counts) - of.counts))


def test_the_file_holds_maps_of_all_problems_and_figures_of_others():
    """The lowest value is the probability itself here: calibration error and Brier score of the minimum can hardly improve,
    those of the maximum do; and the learned weights are those of the minimum."""
    of = judged(1, num_problems=400)
    found = calibrate_verifier(of, Asked(method="platt", target="solutions", aggregation="max"), votes(of), 0)
    worst, best = found.measured["max"], found.measured["min"]
    assert (found.num_labels, found.aggregation, found.first_steps, len(found.maps)) == (2400, "max", [1], 1)
    assert best.before.brier == pytest.approx(brier(of.weights(of.values)["min"], of.correct))
    assert abs(best.after.brier - best.before.brier) < 0.005
    assert worst.after.ece < 0.06
    assert worst.before.ece > 0.2
    assert found.measured[LEARNED].before is None
    assert found.measured[LEARNED].after.brier < worst.after.brier
    for one in found.measured.values():
        assert one.before is None or one.after.best_of_n == one.before.best_of_n, "a map of solutions keeps their order"
        if one.before:
            assert one.gain[0] == pytest.approx(one.after.weighted_vote - one.before.weighted_vote)
            assert one.learned_over[0] == pytest.approx(
                found.measured[LEARNED].after.weighted_vote - one.after.weighted_vote
            )
        assert one.over_majority[1] <= one.over_majority[0] <= one.over_majority[2]


def test_steps_have_maps_by_position():
    """Steps at position 2 are labelled by the squares of their values: two maps, the second with a gain above 1."""
    of = judged(2, num_problems=400, max_steps=2, steps=True)
    rng = np.random.default_rng(0)
    of.truths = (rng.random(len(of.values)) < of.values ** np.where(of.places == 1, 4, 1)).astype(float)
    of.truths[::7] = np.nan
    found = calibrate_verifier(
        of, Asked(method="isotonic", target="steps", aggregation="min", per_step=True), votes(of), 0
    )
    assert (found.first_steps, found.aggregation, found.num_labels) == ([1, 2], None, np.count_nonzero(of.truths >= 0))
    first, second = found.map_values([0.7, 0.7])
    assert first == pytest.approx(0.7, abs=0.08)
    assert second == pytest.approx(0.7**4, abs=0.08)
    assert found.map_values([0.7]) == [first], "a prefix has the values of the whole"
    assert found.map_values([]) == []
    (ece, _), (ece_after, _) = found.step_quality["before"], found.step_quality["after"]
    assert ece_after < ece / 2


def test_positions_with_few_labels_are_joined():
    """Of 50 labels of each kind at positions 1 and 2, 30 at 3 and 4, 10 at 5: ranges 1, 2, and 3 on, which has 60 and then 10 more."""
    numbers = [50, 50, 30, 30, 10]
    places = np.repeat(np.arange(5), 2 * np.array(numbers))
    truths = np.concatenate([np.arange(2 * n) % 2 == 0 for n in numbers])
    assert divide_positions(truths, places) == [1, 2, 3]
    assert divide_positions(truths[:20], places[:20]) == [1]


def test_summaries_and_the_learned_score():
    """Values 0.5, 0.25: minimum 1/4, mean 3/8, last 1/4, log 1/8, 2 steps. Value 0 counts as 1e-12 in the product."""
    rows = summaries(np.array([0.5, 0.25, 0.0]), np.array([2, 1]))
    np.testing.assert_allclose(
        rows, [[0.25, 0.375, 0.25, math.log(1 / 8), 2], [1e-12, 1e-12, 1e-12, math.log(1e-12), 1]]
    )
    learned = dict.fromkeys(("min", "last", "log_product", "num_steps"), 0.0) | {"mean": 8.0, "bias": -3.0}
    one = Calibration(identity=None, target="solutions", maps=[Temperature(1.0)], aggregation="min", learned=learned)
    assert one.scores([[0.5, 0.25], [], [0.5]], LEARNED) == pytest.approx([0.0, -math.inf, 1.0])
    assert one.weights([[0.5, 0.25], [], [0.5]], LEARNED) == pytest.approx([0.5, 0.0, 1 / (1 + math.exp(-1))])
    assert one.weights([[0.5, 0.25], []], "min") == pytest.approx([0.25, 0.0])


def test_a_feature_that_never_differs_has_no_weight():
    of = judged(3, num_problems=60, max_steps=1)
    learned = fit_learned(of, np.ones(len(of.correct), bool))
    assert learned["num_steps"] == 0
    assert learned["min"] == pytest.approx(learned["mean"])
    assert learned["min"] > 0


@given(
    st.lists(st.tuples(st.lists(st.integers(1, 99).map(lambda i: i / 100), max_size=3), st.booleans()), min_size=2, max_size=8),
    st.sampled_from(AGGREGATIONS),
    st.sampled_from([Temperature(3.0), Platt(0.3, 2.0), Isotonic([0.3, 0.6], [0.2, 0.2])]),
)  # fmt: skip
def test_no_map_of_solutions_changes_best_of_n_and_equal_maps_no_vote(rows, how, one):
    samples = [Sample(f"p#{i}", "1", str(i % 3), right, 1, {"prm": values}) for i, (values, right) in enumerate(rows)]
    classes = [i % 3 for i in range(len(rows))]

    def curves(**known):
        candidates = Candidates(samples=samples, classes=classes, sizes=[1, len(rows)], num_subsets=5, **known)
        return [rule.bind("prm", how).curve(candidates).tolist() for rule in (BestOfN(), WeightedVote())]

    calibration = Calibration(identity=None, target="solutions", maps=[one], aggregation=how)
    unchanged = Calibration(identity=None, target="solutions", maps=[Platt(1.0, 0.0)], aggregation=how)
    assert curves(calibrations={"prm": calibration})[0] == curves()[0]
    assert curves(calibrations={"prm": unchanged}) == [pytest.approx(curve) for curve in curves()]


@given(
    st.lists(st.integers(1, 99).map(lambda i: i / 100), min_size=1, max_size=6), st.sampled_from(["min", "max", "last"])
)
def test_an_ascending_map_of_values_is_that_of_their_lowest_highest_and_last(values, how):
    """So that `sampling score` can apply a map of such scores to each value."""
    for one in (Platt(2.0, -1.0), Isotonic([0.2, 0.9], [0.1, 0.7])):
        calibration = Calibration(identity=None, target="solutions", maps=[one], aggregation=how)
        assert calibration.by_value
        assert aggregate(calibration.map_values(values), how) == pytest.approx(calibration.weights([values], how)[0])
    assert not Calibration(identity=None, target="solutions", maps=[one], aggregation="mean").by_value


def test_later_positions_have_the_final_map():
    maps = [Temperature(1.0), Isotonic([0.5], [0.25])]
    found = map_by_position(maps, [1, 3], np.full(5, 0.5), np.arange(5))
    assert found.tolist() == [0.5, 0.5, 0.25, 0.25, 0.25]
