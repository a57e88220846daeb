"""Maps from values to probabilities: temperature, Platt scaling, isotonic regression."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepverify.calibration import (
    METHODS,
    Isotonic,
    Platt,
    Temperature,
    fit_map,
    isotonic,
    logistic_regression,
    logit,
    sigmoid,
)
from stepverify.records import InputError

VALUES = st.lists(st.integers(0, 1000).map(lambda i: i / 1000), min_size=1, max_size=30).map(np.array)
LABELLED = st.lists(st.tuples(st.integers(0, 20).map(lambda i: i / 20), st.booleans()), min_size=2, max_size=40)


@given(VALUES)
def test_temperature_1_and_gain_1_without_bias_change_nothing(values):
    for one in (Temperature(1.0), Platt(1.0, 0.0)):
        np.testing.assert_allclose(one(values), values, atol=1e-12)


@given(VALUES, st.floats(0.1, 10), st.floats(-5, 5))
def test_maps_of_logits_keep_the_order_and_stay_within_0_and_1(values, gain, bias):
    for one in (Temperature(gain), Platt(gain, bias)):
        mapped = one(values)
        assert ((mapped >= 0) & (mapped <= 1)).all()
        inner = (values > 0) & (values < 1)
        assert (np.argsort(mapped[inner], kind="stable") == np.argsort(values[inner], kind="stable")).all()


def test_arithmetic_of_the_maps():
    """Odds of 0.8 are 4: temperature 2 gives odds of 2, 2/3; a gain of 2 and a bias of log 2 odds of 32, 32/33."""
    value = np.array([0.8])
    assert Temperature(2.0)(value) == pytest.approx(2 / 3)
    assert Platt(2.0, math.log(2))(value) == pytest.approx(32 / 33)
    points = Isotonic([0.2, 0.4], [0.1, 0.5])
    assert points(np.array([0.0, 0.25, 0.4, 1.0])) == pytest.approx([0.1, 0.2, 0.5, 0.5])


def test_pooled_neighbours():
    """Labels 0 1 0 1 1 in order of value: the second and third are pooled to 1/2, the last two have the same share, 1."""
    found = isotonic(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([0, 1, 0, 1, 1]) > 0)
    assert found == Isotonic([0.1, 0.2, 0.3, 0.4, 0.5], [0.0, 0.5, 0.5, 1.0, 1.0])
    tied = isotonic(np.array([0.1, 0.1, 0.1, 0.9]), np.array([1, 0, 0, 1]) > 0)
    assert tied == Isotonic([0.1, 0.9], [1 / 3, 1.0])


@given(LABELLED)
def test_isotonic_is_the_best_of_all_ascending_maps(pairs):
    """Of squared errors, by the minimax formula: the fit at a point is max over i <= point of min over j >= point of the mean
    of the labels between i and j (Barlow et al. 1972)."""
    values, correct = (np.array(of) for of in zip(*pairs, strict=True))
    found = isotonic(values, correct)
    fitted = found(values)
    assert (np.diff(fitted[np.argsort(values, kind="stable")]) >= 0).all()
    points = sorted({*values.tolist()})
    for at in points:
        between = [
            [correct[(values >= i) & (values <= j)].mean() for j in points if j >= at] for i in points if i <= at
        ]
        assert fitted[values == at][0] == pytest.approx(max(map(min, between)))


def test_a_temperature_is_found():
    """Values of odds 9 and 1/9 that are correct in 3 of 4 cases and 1 of 4: a likelihood of odds 3, so log 9 / log 3 = 2.

    Platt's targets for 500 of each kind are 501/502 and 1/502, so that the odds are a little below 3.
    """
    values = np.repeat([0.9, 0.1], 500)
    correct = np.tile(np.repeat([True, False, False, True], [375, 125, 375, 125]), 1)
    share = 0.75 * 501 / 502 + 0.25 / 502
    expected = math.log(9) / math.log(share / (1 - share))
    assert expected == pytest.approx(2, abs=0.02)
    assert fit_map("temperature", values, correct).temperature == pytest.approx(expected, rel=1e-6)
    found = fit_map("platt", values, correct)
    assert (found.gain, found.bias) == (pytest.approx(1 / expected, rel=1e-6), pytest.approx(0, abs=1e-6))


def test_separable_values_have_finite_maps():
    """3 correct and 3 incorrect ones: targets 4/5 and 1/5 are met exactly, odds 4 and 1/4."""
    values, correct = np.repeat([0.75, 0.25], 3), np.repeat([True, False], 3)
    for method in ("temperature", "platt"):
        assert fit_map(method, values, correct)(np.array([0.75, 0.25])) == pytest.approx([0.8, 0.2])


@pytest.mark.parametrize("method", METHODS)
def test_what_no_map_can_be_fitted_to(method):
    values, correct = np.array([0.1, 0.2, 0.3]), np.array([True, False, True])
    with pytest.raises(InputError, match=r"^prm: all 3 labels are correct; a map needs both kinds$"):
        fit_map(method, values, np.ones(3, bool), "prm")
    with pytest.raises(InputError, match=r"^prm: all 3 labels are incorrect"):
        fit_map(method, values, np.zeros(3, bool), "prm")
    with pytest.raises(InputError, match=r"^prm: all 3 values are 0.5; a map needs different ones$"):
        fit_map(method, np.full(3, 0.5), correct, "prm")
    values, correct = np.array([0.2, 0.3, 0.7, 0.8]), np.array([True, True, False, False])
    if method == "isotonic":
        assert (fit_map(method, values, correct)(values) == 0.5).all()
    else:
        with pytest.raises(
            InputError, match=r"the fitted gain of logits is -.*, expected above 0: (higher|values are too)"
        ):
            fit_map(method, values, correct)


def test_incorrect_maps_are_refused():
    for build in (
        lambda: Temperature(0.0),
        lambda: Platt(-1.0, 0.0),
        lambda: Platt(1.0, math.nan),
        lambda: Isotonic([0.2, 0.1], [0.0, 1.0]),
        lambda: Isotonic([0.1, 0.2], [1.0, 0.0]),
        lambda: Isotonic([], []),
    ):
        with pytest.raises(InputError, match="expected"):
            build()


@given(LABELLED, st.floats(0.01, 10))
def test_no_other_weights_are_likelier(pairs, penalty):
    """At the maximum the slope is 0: features · (p − t) + penalty · weights."""
    values, correct = (np.array(of, float) for of in zip(*pairs, strict=True))
    features = np.stack([values, values**2, np.ones(len(values))], axis=1)
    weights = logistic_regression(features, correct, np.array([penalty, penalty, 0.01]))
    slope = features.T @ (sigmoid(features @ weights) - correct) + np.array([penalty, penalty, 0.01]) * weights
    assert np.abs(slope).max() < 1e-6 * len(values)


def test_logits_of_the_ends():
    ends = np.array([0.0, 0.5, 1.0])
    assert logit(ends).tolist() == [-math.inf, 0.0, math.inf]
    assert sigmoid(logit(ends)).tolist() == [0.0, 0.5, 1.0]
    assert sigmoid(np.array([-800.0, 800.0])).tolist() == [0.0, 1.0]
    assert all(a < b for a, b in itertools.pairwise(sigmoid(np.linspace(-30, 30, 61))))
