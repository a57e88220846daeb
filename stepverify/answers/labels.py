r"""Compare answers that are text: words, point labels, choices, times, dates.

Letters are variables only if they clearly are: ``HTH`` is not a product. Standard library only.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_WORD = re.compile(r"[A-Za-z][A-Za-z']*")
_TIME = re.compile(r"(\d{1,2})(?:: ?([0-5]\d))?(?:: ?([0-5]\d))? ?(?:([ap])\.?m\.?)?", re.IGNORECASE)
_IDENTIFIER = re.compile(
    r"\d+(?:-\d+){2,}|\d+(?:\.\d+){2,}|\d{1,4}(?:/\d{1,4}){2}|\d{3}-\d{4}|0\d*-\d+"
    r"|\(\d{3}\) ?\d{3}-\d{4}|\+\d[\d -]{6,}"
)
_CHOICE = re.compile(
    r"(?:\\text\{\s*)?(?:\((?P<a>[A-J])\)\s*\}?(?=[\s\w\\$-]|$)|(?P<b>[A-J])\}?\s*[).:](?=\s|$))\s*(?P<rest>.*)",
    re.DOTALL,
)
_LETTER = re.compile(r"(?:\\text\{\s*)?(?:\(([A-Ja-e])\)|([A-J]))\s*\}?")
_MATHEMATICAL = re.compile(r"[\d+*/^_=<>\\|-]")
_NO_LABEL = re.compile("and|or|sin|cos|tan|cot|sec|csc|log|ln|exp|max|min|gcd|lcm|mod|deg|det|sqrt|pi|arg|dim|ker")
_SHORT_WORD = re.compile("no|on|of|to|at|in|is|it|as|am|me|my|we|he|ma|pa|ha|by|do|go|if|so|up|us|an|ax|be|oh|ok|hi")
_LETTERS = re.compile(
    r"\\text *\{[^{}]*\}|\\(?:begin|end) *\{[^{}]*\}|\\[A-Za-z]+"
    r"|(?P<letters>(?<![A-Za-z])(?:[A-Z](?![A-Za-z_(])|[A-Za-z]{2,}))"
)
_VOWELS = frozenset("aeiou")


class Choice(NamedTuple):
    """Hold an option of a multiple-choice question: its letter and its text."""

    letter: str
    says: str


def compact(text: str) -> str:
    r"""Remove spaces around punctuation and frames around text.

    ``1 1/2`` keeps its space, as it is not 11/2.
    """
    return re.sub(r" *([^\w \\]) *", r"\1", " ".join(_TEXT.sub(r" \1 ", text).split()))


def same_label(one: str, other: str) -> bool | None:
    r"""Compare two texts if one is certainly not a formula; otherwise None.

    >>> same_label("HTH", "HHT"), same_label(r"\text{odd}", "Odd"), same_label("2023-05-01", "2017")
    (False, True, False)
    >>> same_label("xy", "yx")
    """
    if _IDENTIFIER.fullmatch(compact(one)) or _IDENTIFIER.fullmatch(compact(other)):
        return compact(one) == compact(other)
    for compare in (_same_time, _same_words):
        if (verdict := compare(one, other)) is not None:
            return verdict
    return None


def choice(text: str) -> Choice | None:
    r"""Parse ``(E) 42``, ``E: none of these``, ``\text{(E)}`` or ``E``.

    >>> choice(r"\text{(E)} 42"), choice("E"), choice("E + 1")
    (Choice(letter='E', says='42'), Choice(letter='E', says=''), None)
    """
    if letter := _LETTER.fullmatch(text):
        return Choice((letter[1] or letter[2]).upper(), "")
    found = _CHOICE.fullmatch(text)
    if not found or _CHOICE.match(found["rest"]):
        return None
    says = found["rest"]
    if says.count("}") > says.count("{"):  # \\text{(E) none}
        says = says.removesuffix("}")
    return Choice(found["a"] or found["b"], says)


def is_label(letters: str, in_formula: bool) -> bool:
    """Distinguish a word or label from a product of variables.

    ``HTH``, ``Amy`` and ``no`` are labels, ``xy`` is a product; so is ``abc`` in a formula.
    """
    if len(letters) < 2 or _NO_LABEL.fullmatch(letters):
        return False
    if letters.islower():
        if in_formula:
            return len(letters) > 4
        return (
            bool(_SHORT_WORD.fullmatch(letters))
            if len(letters) == 2
            else bool(_VOWELS & set(letters)) or len(letters) > 4
        )
    return letters.isupper() or len(letters) > 3 or not in_formula


def hide_labels(text: str) -> str:
    r"""Replace every word in a formula by a symbol.

    So algebra does not multiply its letters: ``AB + 1`` has one symbol.
    """
    in_formula = bool(_MATHEMATICAL.search(text))

    def symbol(found: re.Match[str]) -> str:
        letters = found["letters"]
        if letters is None or not (is_label(letters, in_formula) or (letters.isupper() and letters not in ("E", "I"))):
            return found[0]  # the grammar converts to lower case, but R is not r
        code = "".join(f"{ord(letter):03d}" for letter in letters[:40])
        return rf" \zeta_{{{code}}} "

    return _LETTERS.sub(symbol, text)


def _same_words(one: str, other: str) -> bool | None:
    a, b = _words(one), _words(other)
    if a and b and (a[0] == b[0] or a[1] or b[1]):
        return a[0].casefold() == b[0].casefold()
    return None


def _words(text: str) -> tuple[str, bool] | None:
    """Parse an answer in words; return whether it certainly is one.

    Otherwise it may be a product of variables.
    """
    unwrapped = _TEXT.sub(r"\1", text).strip()
    if unwrapped.startswith("(") and unwrapped.endswith(")"):
        unwrapped = unwrapped[1:-1].strip()
    words = re.sub(r"(?<=[A-Za-z]{2})-(?=[A-Za-z]{2})", " ", unwrapped).split()
    if not words or not all(_WORD.fullmatch(word) for word in words) or any(map(_NO_LABEL.fullmatch, words)):
        return None
    framed = unwrapped != text.strip("() ")
    return " ".join(words), framed or any(is_label(word, in_formula=False) for word in words)


def _same_time(one: str, other: str) -> bool | None:
    """Compare times of day if one has am or pm.

    Without it, 1:20 may be a ratio.
    """
    a, b = (_TIME.fullmatch(compact(text)) for text in (one, other))
    if not a or not b or not (a[4] or b[4]):
        return None
    halves = {half.lower() for half in (a[4], b[4]) if half}
    return len(halves) == 1 and all(int(a[i] or 0) == int(b[i] or 0) for i in (1, 2, 3))
