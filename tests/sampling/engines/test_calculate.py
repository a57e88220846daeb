"""The calculator's arithmetic: GSM8K's values in GSM8K's writing, and nothing for anything else."""

import gzip
import json
import re
import time
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampling.engines.calculator import calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("48/2", "24"), ("100-50-30-15", "5"), ("8/4/2", "1"), ("2+3*4", "14"), ("(2+3)*4", "20"), ("7", "7"),
        ("12/60", ".2"), ("1-1.25", "-.25"), (".5/100", ".005"), ("1.20*4", "4.8"), ("5.*2", "10"), ("0.1+0.2", ".3"),
        ("560//10", "56"), ("7//2", "3"), ("-7//2", "-4"), ("71+-3", "68"), ("-18/-2", "9"), ("1.75-(-1.25)", "3"),
        ("--3", "3"), ("-(2+1)", "-3"), ("-2*3", "-6"), ("1,000*2", "2000"), ("12,345,678+.5", "12345678.5"),
        (" 48 / 2 ", "24"), ("0-0", "0"), ("0*-3", "0"), ("10/3", "3.333333"), ("2/3", ".666667"), ("-2/3", "-.666667"),
        ("1/2000000", ".000001"), ("1999999/2000000", "1"), ("999999999999999+0", "999999999999999"),
    ],
)  # fmt: skip
def test_values_as_gsm8k_writes_them(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    ["", " ", "1/0", "1/(2-2)", "3//0", "2**3", "9**9**9**9", "1+", "*2", "(1", "1)", "()", "1 2", "1.2.3", ".", "1e9",
     "x+1", "50%*2", "$5*2", "1,00", "1,0000", ",5", "3×4", "٣+1", "2(3)", "__import__('os')", "1_000", "1/3000000",
     "999999999999999+1", "9*" * 40 + "9", "(" * 101, "(" * 50 + "1" + ")" * 51, "-" * 101 + "1", "9" * 100_000],
)  # fmt: skip
def test_no_value_at_no_cost(expression):
    start = time.process_time()
    assert calculate(expression) is None
    assert time.process_time() - start < 0.1


def test_the_longest_and_deepest_expressions_are_cheap():
    start = time.process_time()
    assert calculate("(" * 49 + "12" + ")" * 49) == "12"
    assert calculate("-" * 99 + "1") == "-1"
    assert calculate("1/3/" * 24 + "1") is None  # 3^-24 would round to 0
    assert time.process_time() - start < 0.1


def operation(children):
    """Texts with their exact values; None after a division by zero. Every operation stands in parentheses."""

    def build(parts):
        (left, a), operator, (right, b) = parts
        text = f"({left}{operator}{right})"
        if a is None or b is None or (b == 0 and operator in ("/", "//")):
            return text, None
        return text, {"+": a + b, "-": a - b, "*": a * b}.get(operator) if operator in "+-*" else (
            a / b if operator == "/" else Fraction(a // b)
        )  # fmt: skip

    return st.tuples(children, st.sampled_from(["+", "-", "*", "/", "//"]), children).map(build)


NUMBERS = st.one_of(
    st.integers(0, 10_000).map(lambda n: (str(n), Fraction(n))),
    st.integers(1000, 9_999_999).map(lambda n: (f"{n:,}", Fraction(n))),
    st.integers(0, 9999).map(lambda n: (f".{n:04}", Fraction(n, 10_000))),
    st.tuples(st.integers(0, 99), st.integers(0, 99)).map(
        lambda n: (f"{n[0]}.{n[1]:02}", Fraction(n[0] * 100 + n[1], 100))
    ),
)
SIGNED = st.tuples(st.booleans(), NUMBERS).map(lambda n: (f"-{n[1][0]}", -n[1][1]) if n[0] else n[1])


@given(st.recursive(SIGNED, operation, max_leaves=8))
def test_values_are_those_of_exact_fractions(case):
    text, value = case
    found = calculate(text)
    if len(text) > 100 or value is None or abs(value) >= 10**15 - 1:
        assert found is None or value is not None
    elif found is None:
        assert 0 < abs(value) < Fraction(1, 2 * 10**6)
    else:
        assert abs(Fraction(found) - value) <= Fraction(1, 2 * 10**6)
        assert re.fullmatch(r"-?(0|[1-9][0-9]*|([1-9][0-9]*)?\.[0-9]{0,5}[1-9])", found)
        if (value * 10**6).denominator == 1:
            assert Fraction(found) == value


@given(st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(1, 99)), min_size=1, max_size=12))
def test_precedence_and_order_without_parentheses(tail):
    """Terms are summed, factors multiplied, each from left to right."""
    terms = [[Fraction(7)]]
    for operator, number in tail:
        if operator in "+-":
            terms.append([Fraction(number if operator == "+" else -number)])
        else:
            terms[-1].append(Fraction(number) if operator == "*" else 1 / Fraction(number))
    total = Fraction(0)
    for factors in terms:
        product = Fraction(1)
        for factor in factors:
            product *= factor
        total += product
    found = calculate("7" + "".join(f"{operator}{number}" for operator, number in tail))
    assert abs(Fraction(found or 0) - total) <= Fraction(1, 2 * 10**6) or abs(total) >= 10**15 - 1


@given(st.text("0123456789.,+-*/() <=\n", max_size=120))
def test_any_text_has_a_value_or_none(text):
    found = calculate(text)
    assert found is None or calculate(found) == found


@pytest.mark.slow
def test_every_annotation_of_gsm8k(data_folder):
    """The table in the documentation of ``calculate``: each value is the same number, most are the same text."""
    found, ways = Counter(), []
    for split in ("train", "test"):
        with gzip.open(data_folder / "gsm8k" / f"{split}.jsonl.gz", "rt") as file:
            for line in file:
                ways += re.findall("<<(.*?)=(.*?)>>", json.loads(line)["answer"])
    for expression, written in ways:
        value = calculate(expression)
        assert value is not None
        assert Fraction(value) == Fraction(written)
        zeros = written.rstrip("0").rstrip(".") if "." in written else written
        found[
            "as here" if written == value
            else "fraction" if "/" in written
            else "zero before the point" if written == value.replace(".", "0.")
            else "further zeros" if zeros in (value, value.replace(".", "0."))
            else "other"
        ] += 1  # fmt: skip
    assert found == {"as here": 27226, "further zeros": 730, "zero before the point": 41, "fraction": 1}
