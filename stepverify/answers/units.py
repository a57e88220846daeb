r"""Parse the unit or multiplier after a number. Standard library only.

Units are those of a known list. Any other word leaves the answer unparsed: ``5 apples`` is 5, ``5 factorial`` is not,
and accepting an incorrect answer is worse than missing a correct one.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache
from importlib.resources import files
from typing import NamedTuple

PARTS = {
    "half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9,
    "tenth": 10, "hundredth": 10**2, "thousandth": 10**3, "millionth": 10**6,
}  # fmt: skip
"""Ordinal words and the fractions that they name; not ``second``, which is a unit."""
_MULTIPLES = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "lakh": 10**5, "crore": 10**7, "百": 10**2, "千": 10**3, "万": 10**4, "亿": 10**8,
}  # fmt: skip
SCALES: dict[str, Fraction] = {
    **{word: Fraction(n) for word, n in _MULTIPLES.items()},
    **{word: Fraction(1, n) for word, n in PARTS.items()},
    **{f"{word}s": Fraction(1, n) for word, n in PARTS.items() if word != "quarter"},  # quarters are coins
    "halves": Fraction(1, 2),
}
"""Words that multiply the number before them."""
_LINKS = frozenset(("per", "the", "a", "an", "each"))
_NUMBER_WORDS = re.compile(r"(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|\w+ty)")
_DEGREES = re.compile(r"\s*(?:\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree)\s*[CF]?")
_ORDINAL = re.compile(r"\s*\^?\s*(?:\{\s*)?\\text\{\s*(?:st|nd|rd|th)\s*\}(?:\s*\})?|(?:st|nd|rd|th)(?![A-Za-z])")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_POWER = re.compile(r"(?<=[A-Za-z}])\s*\^\s*(?:\{\s*-?\d\s*\}|\d)")  # only of a unit: 2^3 is not 2
_CJK = re.compile(r"\s*([\u4e00-\u9fff]+)\s*")


class _Units(NamedTuple):
    words: frozenset[str]
    abbreviations: frozenset[str]
    chinese: frozenset[str]


@cache
def _units() -> _Units:
    """Read the three blocks of the units file."""
    text = files(__package__).joinpath("units.txt").read_text(encoding="utf-8")
    words, abbreviations, chinese = (
        frozenset(word for line in block.splitlines() if not line.startswith("#") for word in line.split())
        for block in text.split("\n\n")
    )
    singular = (
        word[: -len(end)] + stem
        for word in words
        for end, stem in (("s", ""), ("es", ""), ("ies", "y"))
        if word.endswith(end) and not word.endswith("ss")
    )
    return _Units(words | {word for word in singular if len(word) >= 3}, abbreviations, chinese)


def scale_of_unit(rest: str) -> Fraction | None:
    r"""Return the factor of the unit after a value, 1 for most.

    None if it is more than a unit.

    >>> scale_of_unit(r" \text{ cm}^2"), scale_of_unit(" million dollars"), scale_of_unit(" squared")
    (Fraction(1, 1), Fraction(1000000, 1), None)
    """
    if not rest:
        return Fraction(1)
    if mark := _DEGREES.match(rest) or _ORDINAL.match(rest):
        rest = rest[mark.end() :]
    if chinese := _CJK.fullmatch(rest):
        return _chinese(chinese[1])
    rest = _POWER.sub("", rest)
    quoted = [word for text in _TEXT.findall(rest) for word in text.split()]
    bare = _TEXT.sub(" ", rest)
    if not quoted and bare[:1].isalpha():
        glued = bare.strip()
        if len(glued) == 1 or glued not in _units().abbreviations:
            return None  # 2b and 2s are products, 5km is a length
    words = [*quoted, *bare.split()]
    if len(words) > 6:
        return None
    scale, after_of = Fraction(1), False
    for word in words:
        plain = word.strip("().,").lower()
        if plain in SCALES:
            scale *= SCALES[plain]
        elif plain == "of":
            after_of = True
        elif after_of and plain.isalpha() and len(plain) > 2 and not _NUMBER_WORDS.fullmatch(plain):
            after_of = False  # 5 cups of whatever
        elif plain and not _is_unit(word.strip("(),"), plain):
            return None
    return None if after_of else scale


def _is_unit(word: str, plain: str) -> bool:
    words, abbreviations, _ = _units()
    if plain in _LINKS or word in abbreviations or word.rstrip(".") in abbreviations:
        return True
    return all(part in words or part in abbreviations for part in plain.replace("-", "/").split("/"))


def _chinese(word: str) -> Fraction | None:
    scale = Fraction(1)
    while word[:1] in SCALES:
        scale, word = scale * SCALES[word[0]], word[1:]
    return scale if not word or word in _units().chinese else None
