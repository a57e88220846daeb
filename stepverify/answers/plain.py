r"""Decide at once, and exactly, what needs no computer algebra: plain numbers, words, times of day, equal strings, and
collections of these. Standard library only.
"""

from __future__ import annotations

import re

from stepverify.answers.collection import match, take_apart
from stepverify.answers.extract import extract_answer
from stepverify.answers.number import NO_UNIT, number
from stepverify.answers.spelling import MAX_LENGTH, is_prose, normalize

_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_WORD = re.compile(r"[A-Za-z]+")
_TIME = re.compile(r"(\d{1,2})(?:: ?([0-5]\d))?(?:: ?([0-5]\d))? ?(?:([ap])\.?m\.?)?", re.IGNORECASE)


def settle(gold: str | None, predicted: str | None) -> bool | None:
    r"""Whether two answers are equal; None where only computer algebra can tell. Symmetric.

    Exact for two plain numbers (0.333 is not 1/3) and what is made of them. Nothing equals a missing or empty answer.

    >>> settle("1,000", "1000.0"), settle(r"(0.5, 2)", r"(\frac12, 3)"), settle("2x", "x + x")
    (True, False, None)
    """
    gold, predicted = stated(gold or ""), stated(predicted or "")
    if not gold or not predicted:
        return False
    if gold == predicted:
        return True
    if max(len(gold), len(predicted)) > MAX_LENGTH:
        return False
    one, other = number(gold), number(predicted)
    if one and other:
        return one.equals(other)
    left, right = normalize(gold), normalize(predicted)
    if left and _compact(left) == _compact(right):
        return True
    for compare in (_same_time, _same_words):
        if (verdict := compare(left, right)) is not None:
            return verdict
    parts, others = take_apart(gold), take_apart(predicted)
    if parts and others:
        return match(parts, others, settle)
    if several := (one and others) or (other and parts):
        return False if all(map(number, several.parts)) else None  # 1, 2 is not 1
    return None


def answer_key(answer: str | None) -> str | None:
    """A canonical key of a plain number: equal keys are equal answers. None for anything else.

    >>> answer_key("1,000.50"), answer_key("20%"), answer_key("x")
    ('2001/2', '20%', None)
    """
    found = number(answer) if answer else None
    return None if found is None else f"{found.value}{'%' if found.percent else ''}"


def stated(answer: str) -> str:
    """The answer itself; of a solution or a sentence, what it states."""
    solution = len(answer) > MAX_LENGTH or "#" in answer or is_prose(answer)
    return ((extract_answer(answer) if solution else None) or answer).strip()


def _compact(text: str) -> str:
    """Without spaces around punctuation and frames around text. ``1 1/2`` keeps its space, for it is not 11/2."""
    return re.sub(r" *([^\w \\]) *", r"\1", " ".join(_TEXT.sub(r" \1 ", text).split()))


def _same_words(one: str, other: str) -> bool | None:
    a, b = _words(one), _words(other)
    if a and b and (a[0] == b[0] or a[1] or b[1]):
        return a[0].casefold() == b[0].casefold()
    return None


def _words(text: str) -> tuple[str, bool] | None:
    r"""The words of an answer in words, and whether it surely is one and no product of variables."""
    unwrapped = _TEXT.sub(r"\1", text).strip()
    if unwrapped.startswith("(") and unwrapped.endswith(")"):
        unwrapped = unwrapped[1:-1].strip()
    words = unwrapped.replace("-", " ").split()
    if not words or not all(_WORD.fullmatch(word) for word in words) or any(word in NO_UNIT for word in words):
        return None
    return " ".join(words), unwrapped != text.strip("() ") or any(len(word) >= 4 for word in words)


def _same_time(one: str, other: str) -> bool | None:
    """Of times of day, if one of them says which half of the day it is in; 1:20 may be a ratio."""
    a, b = (_TIME.fullmatch(_compact(text)) for text in (one, other))
    if not a or not b or not (a[4] or b[4]):
        return None
    halves = {half.lower() for half in (a[4], b[4]) if half}
    return len(halves) == 1 and all(int(a[i] or 0) == int(b[i] or 0) for i in (1, 2, 3))
