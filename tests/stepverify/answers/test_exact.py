r"""Equality of constants: no tolerance, whatever their size; bounds on what is computed.

Denesting: \sqrt{5 + 2\sqrt 6} = \sqrt 2 + \sqrt 3, as (\sqrt 2 + \sqrt 3)^2 = 5 + 2\sqrt 6.
"""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import Rational

from stepverify.answers import equivalent
from stepverify.answers.exact import Unknown, equal_numbers, rational
from stepverify.answers.formula import read


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 400), st.integers(2, 50), st.sampled_from([r"\pi", r"\sqrt{2}", "e", r"\sqrt{2}+\sqrt{3}", r"\ln 3"])
)
def test_constants_that_differ_by_little_are_told_apart(power, base, constant):
    near = rf"{constant}+\frac{{1}}{{{base}^{{{power}}}}}"
    assert equivalent(constant, near) is False
    assert equivalent(near, near.replace("+", " + ")) is True
    assert equivalent(near, rf"\frac{{1}}{{{base}^{{{power}}}}}+{constant}") is True


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 300), st.integers(2, 9), st.integers(-2, 2))
def test_powers_are_compared_exactly(power, base, difference):
    assert equivalent(f"{base}^{{{power}}}", f"{base**power + difference}") is (difference == 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_nested_radicals_are_proved_equal(a, b):
    r"""(\sqrt a + \sqrt b)^2 = a + b + 2\sqrt{ab}."""
    sum_of_roots, nested = rf"\sqrt{{{a}}}+\sqrt{{{b}}}", rf"\sqrt{{{a + b}+2\sqrt{{{a * b}}}}}"
    assert equivalent(sum_of_roots, nested)
    assert not equivalent(sum_of_roots, nested.replace(f"{a + b}+", f"{a + b + 1}+"))


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (r"\frac{1}{1009!}", r"\frac{1}{1011!}", False), (r"\frac{1009!}{1011!}", r"\frac{1}{1010 \cdot 1011}", True), ("30!", "30!+1", False),
        ("x + 10^{-60}", "x", False), (r"\frac{x}{2023!}", r"\frac{x}{2024!}", False), (r"\sin 1", r"\sin 1 + 10^{-90}", False),
        ("0.8660254037844386", r"\frac{\sqrt3}{2}", True), ("0.8660254037844387", r"\frac{\sqrt3}{2}", True), ("0.86602540378", r"\frac{\sqrt3}{2}", False),
        ("0.8660254037844486", r"\frac{\sqrt3}{2}", False), ("8^{2/3}", "4", True), ("(-8)^{1/3}", "4", False), ("2.0", r"\log_2 4", True), ("0^0", "1", True),
    ],
)  # fmt: skip
def test_examples(one, other, equal):
    assert (equivalent(one, other), equivalent(other, one)) == (equal, equal)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10^{10^{10}}", "10^{10^{10}}+1"),
        ("10^{10^{10^{10}}}", "7"),
        ("(10^{10})!", "5"),
        (r"2^{2^{100}}", r"2^{2^{101}}"),
        (r"\pi^{10^9}", r"\pi^{10^9}+1"),
    ],
)
def test_what_is_too_large_equals_nothing_and_costs_nothing(one, other):
    start = time.process_time()
    assert equivalent(one, other) is False
    assert time.process_time() - start < 5


def test_rational_operations_alone_are_exact():
    (x,), at = read("x^2 - x/3")[:1], {"x": Fraction(1, 2)}
    assert rational(x, at) == Fraction(1, 4) - Fraction(1, 6)
    assert rational(read(r"\sqrt{2}x")[0], at) is None
    with pytest.raises(Unknown):
        rational(read(r"\frac{1}{2x - 1}")[0], at)
    with pytest.raises(Unknown):
        rational(read("2^{1000000}")[0], {})


def test_without_a_bound_within_reach_nothing_is_decided():
    one = read(
        "+".join(rf"\sqrt{{{n}}}" for n in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61))
    )[0]
    near = Rational(str(one.evalf(60)))
    with pytest.raises(Unknown):
        equal_numbers(one, near)
    assert equal_numbers(one, near + Rational(1, 10**20)) is False
