"""Names before values."""

import itertools
import re

import pytest

from stepverify.answers.statement import _NAME, named


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Area of ABC = 12", ("Area of ABC", "12")), ("total cost = 5", ("total cost", "5")), ("AB = 3", ("AB", "3")),
        (r"\text{Area}ABC = 7", (r"\text{Area}ABC", "7")), ("ab = 3", None), ("the x = 3", None),
    ],
)  # fmt: skip
def test_words_before_an_equals_sign_are_a_name(text, found):
    assert named(text) == found


def test_words_are_those_that_letters_can_be_divided_into():
    """Up to five letters: three or more in a row, ``of``, up to four capitals; in every division, as once written."""
    divided = re.compile(r"(?:[A-Za-z]{3,}|of|[A-Z]{1,4})+")
    for length in range(2, 6):
        for letters in map("".join, itertools.product("ofA", repeat=length)):
            assert bool(_NAME.fullmatch(letters)) == bool(divided.fullmatch(letters)), letters


def test_long_words_take_no_longer_than_their_length():
    """Fifty words without a space once took longer than the universe is old, in the process that reads the answer."""
    assert named("dollars" * 50 + "1e9=-") is None
    assert named("dollars" * 50 + "=7") == ("dollars" * 50, "7")
