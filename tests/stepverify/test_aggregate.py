import math
import random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepverify.aggregate import AGGREGATIONS, aggregate, deepest_fall, vote_weight

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def test_every_rule_by_hand():
    """Of 0.5, 0.25, 0.8: product 0.1, minimum 0.25, last 0.8, mean 1.55 / 3, maximum 0.8."""
    values = [0.5, 0.25, 0.8]
    expected = {"prod": math.log(0.1), "min": 0.25, "last": 0.8, "mean": 1.55 / 3, "max": 0.8}
    assert tuple(expected) == AGGREGATIONS
    for how, score in expected.items():
        assert aggregate(values, how) == pytest.approx(score)
    assert aggregate([0.9, 0.1], "last") == 0.1
    assert aggregate([0.9, 0.1], "max") == 0.9


def test_the_weight_of_a_vote_is_on_the_scale_of_probabilities():
    """As above, but the product itself: 0.1, not its logarithm."""
    expected = {"prod": 0.1, "min": 0.25, "last": 0.8, "mean": 1.55 / 3, "max": 0.8}
    for how, weight in expected.items():
        assert vote_weight([0.5, 0.25, 0.8], how) == pytest.approx(weight)


def test_four_hundred_small_probabilities_keep_their_order():
    """1e-10 to the 400th is 1e-4000, which no double holds; its logarithm is -4000 · ln 10."""
    low, high = [1e-10] * 400, [1e-10] * 399 + [2e-10]
    assert math.prod(high) == 0.0
    assert aggregate(low, "prod") == pytest.approx(-4000 * math.log(10))
    assert aggregate(high, "prod") - aggregate(low, "prod") == pytest.approx(math.log(2), rel=1e-6)
    rng = random.Random(0)
    paths = [[rng.uniform(1e-12, 1e-6) for _ in range(400)] for _ in range(20)]
    by_logs = sorted(range(20), key=lambda i: math.fsum(math.log10(v) for v in paths[i]))
    assert sorted(range(20), key=lambda i: aggregate(paths[i], "prod")) == by_logs


def test_a_step_of_probability_zero_makes_the_product_zero():
    assert aggregate([0.9, 0.0, 0.9], "prod") == -math.inf
    assert vote_weight([0.9, 0.0, 0.9], "prod") == 0.0


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_without_scores_nothing_ranks_below(how):
    assert aggregate([], how) == -math.inf
    assert vote_weight([], how) == 0.0


@pytest.mark.parametrize("how", ["median", "", None])
def test_an_unknown_rule_is_refused(how):
    for values in ([0.5], []):
        with pytest.raises(ValueError, match=r"aggregation: expected one of \('prod', 'min'"):
            aggregate(values, how)


@given(VALUES)
def test_the_rules_stand_in_order(values):
    """Product ≤ minimum ≤ mean ≤ maximum, and all are what their name says."""
    product, low, average, high = (vote_weight(values, how) for how in ("prod", "min", "mean", "max"))
    assert product <= low * (1 + 1e-9) or product == pytest.approx(low)
    assert low <= average * (1 + 1e-9)
    assert average <= high * (1 + 1e-9)
    assert product == pytest.approx(math.prod(values), abs=1e-12)
    assert average == pytest.approx(mean(values))
    assert aggregate(values, "last") == values[-1]
    assert aggregate([*values, 0.5], "last") == 0.5


def test_the_deepest_fall_by_hand():
    assert deepest_fall([0.9, 0.8, 0.3, 0.7, 0.2, 0.2]) == 2, "the first of equals, 0.8 to 0.3 and 0.7 to 0.2"
    assert deepest_fall([0.1, 0.1, 0.5]) is None
    assert deepest_fall([0.5]) is deepest_fall([]) is None
