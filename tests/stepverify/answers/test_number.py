"""Plain numbers are read exactly: spellings, units, bases, words; what is none."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepverify.answers import answer_key, equivalent
from stepverify.answers.compare import settle
from stepverify.answers.number import number
from stepverify.answers.units import scale_of_unit

EQUAL = [
    ("18", "18.0"), ("1000", "1,000"), ("1000", "1 000"), ("3110400", r"3,\!110,\!400"), ("14916", "14{,}916"),
    ("18", "$18"), ("-15", "-$15"), ("18", r"\$18.00"), ("18", "18 dollars"), ("18", r"18 \text{ cm}^2"), ("5", "5 km"),
    ("60", r"60^\circ"), ("60", r"60^{\circ}"), ("60", "60 degrees"), ("0.5", "1/2"), ("1/2", r"\frac12"),
    ("-1/2", r"\frac{-1}{2}"), ("-1/2", r"-\dfrac{1}{2}"), ("1.5", "1 1/2"), ("2.5", r"2\frac{1}{2}"), ("20", r"20\%"),
    ("1/5", "20%"), ("2000000", "2 million"), ("−3", "-3"), ("15", r"\15"), (r"\text{(C)}", "C"),
    (r"\text{Even}", "even"), ("1477", "4210_{7}"),  # 4 · 343 + 2 · 49 + 1 · 7
    ("(3,2)", "(3, 2)"), (r"\left(3, 2\right)", "(3,2)"), ("7", "$7$"), ("7", r"\boxed{7}"),
    ("1000.99", "it is 1,000.99€"),
]  # fmt: skip
UNEQUAL = [
    ("0.333", "1/3"), ("18", "81"), ("15", "-$15"), ("1 1/2", "11/2"), ("50%", "0.5%"), ("2b", "2"), ("2 pi", "2"),
    ("6 and 8", "6"), ("12_7", "12"), ("32349", "32, 349"), (r"\text{Even}", "odd"), ("3", "3:2"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "predicted"), EQUAL)
def test_equal_without_computer_algebra(gold, predicted):
    assert settle(gold, predicted) is True
    assert settle(predicted, gold) is True


@pytest.mark.parametrize(("gold", "predicted"), UNEQUAL)
def test_unequal_or_left_to_computer_algebra(gold, predicted):
    assert not settle(gold, predicted)
    assert not settle(predicted, gold)
    assert not equivalent(gold, predicted)


@pytest.mark.parametrize(("gold", "predicted"), [("5", None), ("5", ""), ("5", "  "), ("", ""), ("", "5")])
def test_nothing_equals_a_missing_answer(gold, predicted):
    assert equivalent(gold, predicted) is False


def test_huge_numbers_are_not_plain():
    assert answer_key("9" * 100) == "9" * 100
    assert answer_key("9" * 101) is None
    assert answer_key("1/0") is None
    assert answer_key("1e999999999") is None
    assert settle("9" * 100_000, "9" * 100_001) is False  # over 2,000 characters: equal to a copy only
    assert settle("9" * 100_000, "9" * 100_000) is True


@given(value=st.fractions(max_denominator=10**6), other=st.fractions(max_denominator=20))
def test_numbers_are_compared_exactly_and_symmetrically(value, other):
    one, latex = f"{value}", rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    assert equivalent(one, latex)
    assert equivalent(latex, one)
    assert equivalent(one, f"{other}") is equivalent(f"{other}", one) is (value == other)
    assert answer_key(one) == answer_key(latex) == f"{value}"


@given(st.integers(-(10**12), 10**12), st.integers(0, 999))
def test_separators_and_currency_leave_the_value(whole, thousandths):
    text = f"{whole:,}.{thousandths:03d}"
    sign = -1 if text.startswith("-") else 1
    expected = sign * (abs(whole) + Fraction(thousandths, 1000))
    assert answer_key(text) == answer_key(text.replace(",", "")) == answer_key(rf"\${text}") == f"{expected}"


@given(st.lists(st.sampled_from([*r"0123456789.,/-+%$ \{}()x^=_", r"\frac", r"\text{", "cm", "and"])).map("".join))
def test_settling_any_text_is_symmetric_and_does_not_fail(text):
    assert settle(text, "5") is settle("5", text)
    assert settle(text, text) is bool(text.strip())


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("forty-two", 42), ("Negative forty two", -42), (r"\text{three}", 3), ("one hundred and five dollars", 105), ("two thirds", Fraction(2, 3)),
        ("3 halves", Fraction(3, 2)), ("5 squared", 25), (r"2 \text{ cubed}", 8), ("5 hundredths", Fraction(1, 20)), ("5 lakh", 500_000),
        ("2.5 hundred thousand", 250_000), ("5 dozen", 60), ("3万", 30_000), ("42元", 42), (r"\frac{1}{2}米", Fraction(1, 2)), ("2½", Fraction(5, 2)),
        ("101_2", 5), (r"101_{\text{two}}", 5), ("(101)_2", 5), ("101_{(2)}", 5), ("101 (base 2)", 5), (r"\text{A3F}_{16}", 2623), ("0x1F", 31), ("FF_{16}", 255),
        (r"0.\dot{3}", Fraction(1, 3)), (r"0.\dot{1}4285\dot{7}", Fraction(1, 7)), ("0.(3)", Fraction(1, 3)), ("48 sq. ft.", 48), ("10 years old", 10),
        (r"9.8\ \mathrm{m\,s^{-2}}", Fraction(49, 5)), ("3/4 cup", Fraction(3, 4)), ("US$5", 5), ("5 USD", 5), ("Rs. 500", 500), (r"7 \pmod{12}", 7),
        ("5 blue marbles", 5), ("5 cups of flour", 5), ("5 times", 5),
    ],
)  # fmt: skip
def test_reads(answer, value):
    assert number(answer).value == value


@pytest.mark.parametrize(
    "answer",
    ["5 factorial", "5 gross", "5 unheard-ofs", "5 less", "5 over 2", "5 out of 8", "5 of eight", "5 feet 3 inches", "5 apples and 2 oranges", "5 or more",
     "one two", "seven of", "a_{11}", "F_{16}", "102_2", "5s", "5k", "(1,200)", "5!", "2^3", "five factorial"],
)  # fmt: skip
def test_reads_no_number_in_what_is_more_than_one(answer):
    assert number(answer) is None


def test_units_are_those_of_the_list_and_their_singulars():
    assert [scale_of_unit(f" {unit}") for unit in ("meters", "meter", "cherry", "kg", "kilograms of rice")] == [1] * 5
    assert [scale_of_unit(f" {word}") for word in ("meterz", "squared", "kgs of", "minus", "modulo")] == [None] * 5


def test_a_modulus_counts_where_both_have_one():
    assert settle(r"7 \pmod{12}", r"19 \pmod{12}") is True
    assert settle(r"7 \pmod{12}", r"7 \pmod{13}") is False
    assert settle("7", "19 (mod 12)") is False
