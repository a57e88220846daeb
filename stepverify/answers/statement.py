r"""Split names and conditions from values.

``x = 5`` names its value, ``2n, where n \ge 1`` has a condition. Only ``symbol = value`` states a value; ``x + y = 5``
is an equation, and equals no number. Standard library only.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from stepverify.answers.masking import mask, split

_SUBSCRIPT = r"(?:\s*_\s*(?:\w|\\[A-Za-z]+|\{[^{}]*\}))?"
_GREEK = (
    r"(?:var)?(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|xi|rho|sigma|tau|phi|chi|psi|omega|eta|zeta|kappa|pi)|ell"
    r"|Gamma|Delta|Theta|Lambda|Sigma|Phi|Psi|Omega"
)
_ACCENTS = "text|mathbf|vec|hat|bar|overline|widehat|overrightarrow|mathcal"
_SYMBOL = rf"(?:\\(?:{_ACCENTS})\s*\{{[^{{}}=]*\}}|\\(?:{_GREEK})(?![A-Za-z])|[A-Za-z](?![A-Za-z])){_SUBSCRIPT}'*"
_POINTS = r"(?:m\s*)?(?:\\(?:angle|triangle|measuredangle)\s*)?[A-Z]{1,5}(?![A-Za-z])"
_ARGUMENTS = r"\s*\([^()=<>]{1,30}\)"
_NAME = re.compile(
    rf"\s*(?:(?:{_SYMBOL})(?:\s*\^\s*\{{\s*-1\s*\}})?(?:{_ARGUMENTS})?|{_POINTS}|\|\s*(?:\\vec\s*\{{[^{{}}]*\}}|{_POINTS})\s*\||"
    rf"\\frac\s*\{{\s*d\s*\w\s*\}}\s*\{{\s*d\s*\w\s*\}}|(?:{_SYMBOL}|{_POINTS})\s*:\s*(?:{_SYMBOL}|{_POINTS})|"
    rf"\(\s*(?:{_SYMBOL})(?:\s*,\s*(?:{_SYMBOL}))+\s*\)|"
    # Whole words only: letters that could be divided into words in many ways take exponential time.
    r"(?:(?:\\text\s*\{[^{}=]*\}|(?<![A-Za-z])(?:[A-Za-z]{3,}|of|[A-Z]{1,4})(?![A-Za-z]))\s*)+)\s*"
)
_FUNCTION = re.compile(r"\s*([A-Za-z])\s*\(\s*([a-z])\s*\)\s*")
_EQUALS = re.compile(r"(?<![<>!:\\])(?:=|\\equiv(?![A-Za-z]))")
_IN = re.compile(r"\\in(?![A-Za-z])")
_APPROXIMATELY = re.compile(r"\\approx(?![A-Za-z])")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|approx)(?![A-Za-z])")
_JOINS = re.compile(r",|;|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_LETTERS = re.compile(r"(?<![A-Za-z\\])[A-Za-z]")
_CONDITION = re.compile(
    r"\s*[,;]?\s*(?:\\text\s*\{\s*,?\s*|\(\s*)?(?:"
    r"(?:for|with) (?:all|every|each|any|some|real|integers?|positive|non-?negative|natural)\b"
    r"|(?:for|with) (?:\}\s*)?\$?(?=[a-zA-Z]\s*(?:[<>=]|\\(?:le|ge|ne|in)\b|is\b))"
    r"|where\b|provided\b"
    r"|(?<=[,;])\s*\$?(?=(?P<variable>[a-z])\s*(?:\\in\s*\\mathbb|[<>]|\\(?:le|ge|ne)\b)))",
)


class Named(NamedTuple):
    """Hold a value and its name; the name may be empty."""

    name: str
    value: str


@lru_cache(maxsize=4096)
def named(text: str) -> Named | None:
    r"""Parse a named value; None for anything else.

    ``x = 5``, ``5 = x``, ``f(x) = x^2``, ``x \in S`` or ``28/4 = 7``.

    >>> named("x = 3, -2"), named("x + y = 5"), named("x = 1, y = 2"), named(r"\text{Area} = 12 \approx 12.1")
    (Named(name='x', value='3, -2'), None, None, Named(name='\\text{Area}', value='12'))
    """
    sides = split(text, _EQUALS)
    if len(sides) == 1:
        sides = split(text, _IN)
        if len(sides) != 2 and _APPROXIMATELY.search(text):
            sides = split(text, _APPROXIMATELY)
            if len(sides) == 2 and not _NAME.fullmatch(sides[0]):
                return None if _LETTERS.search(sides[0]) else Named("", sides[0])
    if len(sides) < 2 or not all(sides) or any(_JOINS.search(mask(side)) for side in sides[:-1]):
        return None
    first, last = sides[0], split(sides[-1], _APPROXIMATELY)[0]
    if _RELATION.search(mask(first)) or not last:
        return None
    if _NAME.fullmatch(first):
        return Named(first.strip(), last)
    if _LETTERS.search(first):
        return None
    if len(sides) == 2 and _NAME.fullmatch(last):
        return Named(last.strip(), first)
    return None if any(map(_LETTERS.search, sides)) else Named("", last)


def is_equation(text: str) -> bool:
    """Check whether a text is an equation, not a value."""
    return len(split(text, _EQUALS)) > 1


def agree(one: Named, other: Named) -> tuple[str, str] | None:
    """Return the values to compare; None if the names differ.

    A function is its graph, ``f(x) = 2x`` and ``y = 2x``; its argument may have any name.
    """
    if not one.name or not other.name or _compact(one.name) == _compact(other.name):
        return one.value, other.value
    a, b = _FUNCTION.fullmatch(one.name), _FUNCTION.fullmatch(other.name)
    if a and b and a[1] == b[1]:
        return one.value, re.sub(rf"(?<![A-Za-z\\]){b[2]}(?![A-Za-z])", a[2], other.value)
    if (a or b) and "y" in (one.name, other.name):
        return one.value, other.value
    return None


@lru_cache(maxsize=4096)
def condition(text: str) -> tuple[str, str]:
    r"""Split an answer from the condition after it, which may be empty.

    >>> condition(r"3x - 2 \text{ for all real } x"), condition("n^2, where n > 1"), condition("5 for 2 dollars")
    (('3x - 2', 'for all real x'), ('n^2', 'where n > 1'), ('5 for 2 dollars', ''))
    """
    found = _CONDITION.search(text)
    if not found or not found.start():
        return text, ""
    if (variable := found["variable"]) and (
        _RELATION.search(text[: found.start()]) or variable not in text[: found.start()]
    ):
        return text, ""  # x > 2, x < 5 are two
    said = re.sub(r"\\text|[{}$]", "", text[found.start() :]).strip(" ,;()")
    return text[: found.start()].strip(), " ".join(said.split())


def _compact(name: str) -> str:
    return re.sub(r"\\text|\s|[{}]", "", name).casefold() if "text" in name else re.sub(r"[\s{}]", "", name)
