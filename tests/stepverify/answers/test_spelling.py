"""The table of spellings, a test a row; laws of the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepverify.answers.spelling import CHARACTERS, RULES, is_prose, normalize


@pytest.mark.parametrize("rule", CHARACTERS + RULES, ids=lambda rule: rule.before)
def test_every_rule_does_what_its_example_says(rule):
    assert rule.before != rule.after
    assert rule.pattern.sub(rule.replacement, rule.before) == rule.after


@pytest.mark.parametrize("rule", CHARACTERS + RULES, ids=lambda rule: rule.before)
def test_every_example_has_one_spelling(rule):
    """The rules together bring both sides of an example to the same text, spaces aside."""
    assert normalize(rule.before).replace(" ", "") == normalize(rule.after).replace(" ", "")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("$$5$$", "5"), (r"\(5\)", "5"), (r"\boxed{5}.", "5"), ("**5**", "5"), ("*5*", "5"), ("`5`", "5"), ("'5'", "5"), ('"5"', "5"), ("__5__", "5"),
        (r"\text{5}", "5"), (r"\text{five}", r"\text{five}"), ("$a$ or $b$", "$a$ or $b$"), (r"\boxed{1},\boxed{2}", r"\boxed{1},\boxed{2}"), ("2*3", "2*3"),
        (r"\frac{1}{2}x²", r"\frac{1}{2}x^{2}"), ("＝ ５", "5"), ("α ≤ β", r"\alpha \le \beta"), ("5!=120", "5!=120"), ("k!=3", r"k\ne 3"),
        (r"$\\frac{1}{2}$", r"\frac{1}{2}"), ("1,\n2", "1, 2"), ("", ""),
    ],
)  # fmt: skip
def test_normalizes(answer, text):
    assert " ".join(normalize(answer).split()) == text


@given(st.text(max_size=60))
def test_any_text_has_a_spelling(text):
    assert isinstance(normalize(text), str)


def test_prose_is_more_than_three_words():
    assert [
        is_prose(t) for t in ("10 years old", "x + y = 5", r"\text{none of these at all}", "she has five apples")
    ] == [False] * 3 + [True]
