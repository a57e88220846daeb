r"""Decide at once, and exactly, what needs no computer algebra: plain numbers, words, equal strings.

A plain number is an integer, a decimal, a fraction ``a/b`` or ``\frac{a}{b}``, a mixed number, with
or without thousands separators, currency, percent or degree sign and unit, or an integer with its
base (``4210_7``). Standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from stepverify.answers.extract import extract_answer

MAX_DIGITS = 100
"""Characters of a plain number: 10^100 is beyond any answer, and exact arithmetic on it costs nothing."""
MAX_LENGTH = 2_000
"""Characters of an answer that is looked at; a longer one equals its own copy only."""


@dataclass(frozen=True, slots=True)
class Number:
    """A plain number; ``percent`` where it was written with a percent sign (``20%`` has value 20)."""

    value: Fraction
    percent: bool = False

    def equals(self, other: Number) -> bool:
        """Equal values; of ``20%`` both readings, 20 and 1/5, where the other has no percent sign."""
        if self.value == other.value or self.percent == other.percent:
            return self.value == other.value
        return self.value == other.value * 100 if self.percent else self.value * 100 == other.value


# ── spelling ──────────────────────────────────────────────────────────────────────────────────────

_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[−–﹣-]", "-"),
        (r",\s*\\!\s*|\{,\}\s*", ","),  # 3,\!110 and 3{,}110
        (r"\\!", ""),
        (r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![A-Za-z])|[\s\u00a0\u2009\u202f]+", " "),
        (r"\\left(?![A-Za-z.])|\\right(?![A-Za-z.])|\\displaystyle(?![A-Za-z])", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:textrm|textbf|textit|textnormal|mbox|hbox|mathrm|mathbf|mathit|operatorname)\s*(?=\{)", r"\\text"),
        (r"\\text\s+\{", r"\\text{"),
        (r"\\[$]|\\(?:pounds|euro)(?![A-Za-z])|[€£¥₹]", "$"),
        (r"(?<!\\)\\(?=\d|$)", ""),  # stray: \15 and 185\
        (
            r"^\s*[A-Za-z][^\\$]*\b(?:is|are|equals) (?=[-+$\d.\\(\[](?:(?!\.\s).){0,60}$)",
            "",
        ),  # the largest number is 34
    )
)
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), (r"\boxed{", "}"))
_ESCAPED_TWICE = re.compile(r"(?<!\\)\\\\(?:begin|[dtc]?frac|sqrt|text|left|boxed|pi|cdot|infty)(?![A-Za-z])")


@lru_cache(maxsize=4096)
def normalize(answer: str) -> str:
    r"""One spelling for what LaTeX and English spell in many ways; the mathematics stays as it is.

    >>> normalize(r"$\left( 3,\!110, \dfrac{1}{2} \right)$")
    '( 3,110, \\frac{1}{2} )'
    """
    text = answer.strip()
    if _ESCAPED_TWICE.search(text):  # JSON within JSON
        text = text.replace("\\\\", "\\")
    for left, right in _DELIMITERS:
        inner = text[len(left) : -len(right)]
        if (
            len(text) > len(left + right)
            and text.startswith(left)
            and text.endswith(right)
            and not _breaks_out(inner, left)
        ):
            text = inner
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    text = text.strip().rstrip(".,;") if not text.endswith("...") else text.strip()
    if text.count("$") == 1:  # currency, for no formula has one delimiter
        text = text.replace("$", "")
    return text.strip()


def _breaks_out(inner: str, left: str) -> bool:
    r"""Whether the delimiters around ``inner`` are not a pair: ``$a$ or $b$``, ``\boxed{a},\boxed{b}``."""
    if not left.endswith("{"):
        return left in inner
    depth = 0
    for character in inner:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return True
    return False


# ── numbers ───────────────────────────────────────────────────────────────────────────────────────

_DECIMAL = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?![\d,])(?:\.\d+)?|[1-9]\d{0,2}(?: \d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?) \s*
    (?: (?:(?P<whole>\d+)\s*)? \\frac\s* (?:\{{\s*(?P<a>-?\s*{_DECIMAL})\s*\}}|(?P<a1>\d))
                                  \s* (?:\{{\s*(?P<b>-?\s*{_DECIMAL})\s*\}}|(?P<b1>\d))
      | (?:(?P<whole2>\d+)\ +)? (?P<c>\d+)\s*/\s*(?P<d>\d+)
      | (?P<decimal>{_DECIMAL}) (?:\s*/\s*(?P<under>{_DECIMAL}))?
    )
    """.replace(" \\d{3}", "[ ]\\d{3}"),  # VERBOSE would drop the space that separates thousands
    re.VERBOSE,
)  # fmt: skip
_BASED = re.compile(r"(\d{1,100})_(?:(\d)|\{\s*(?:\\text\{)?(\d{1,2})\}?\s*\})")
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:percent|pct|\\?%)\s*\}|percent\b|pct\b)\s*")
_DEGREES = re.compile(r"\s*(?:\^\s*(?:\\circ|\{\s*\\circ\s*\})|°|\\degree)\s*[CF]?")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_POWER = re.compile(r"\^\s*(?:\d|\{\d\})|[²³]")
_WORD = re.compile(r"[A-Za-z]+")
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}


def _word_set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SHORT_UNITS = _word_set(
    "mm cm dm km m ft in yd mi g kg mg lb lbs oz s sec min h hr hrs mph kph km/h m/s ml mL L day men USD"
)
_LINKS = _word_set("of per the a an")
# Words after a number that are no unit: they join, change or name something else.
_NO_UNIT = _word_set(
    "and or to plus minus times over by than less more mod modulo base remainder if when not am pm half "
    "sqrt sin cos tan cot sec csc log ln exp pi theta alpha beta gamma delta omega infinity infty pmod choose"
)


@lru_cache(maxsize=4096)
def number(answer: str) -> Number | None:
    r"""Read a plain number; None for anything else.

    Units are dropped, not converted: the question fixes them (``5 \text{ cm}`` is 5).

    >>> number(r"\$1,\!000.50"), number(r"2\frac{1}{2} \text{ hours}")
    (Number(value=Fraction(2001, 2), percent=False), Number(value=Fraction(5, 2), percent=False))
    """
    if len(answer) > MAX_LENGTH:
        return None
    text = normalize(answer)
    if based := _BASED.fullmatch(text):
        return _in_base(based[1], int(based[2] or based[3]))
    found = _NUMBER.match(text)
    if not found or len(found[0]) > MAX_DIGITS:
        return None
    value = _value(found)
    rest = text[found.end() :]
    if percent := _PERCENT.fullmatch(rest):
        scale: int | None = 1
    else:
        scale = _scale_of_unit(rest, text[found.end() - 1])
    return None if value is None or scale is None else Number(value * scale, percent=bool(percent))


def _in_base(digits: str, base: int) -> Number | None:
    """The value of ``4210_{7}``."""
    if not 2 <= base <= 10 or int(max(digits)) >= base:
        return None
    return Number(Fraction(int(digits, base)))


def _value(found: re.Match[str]) -> Fraction | None:
    part = {name: re.sub(r"[ ,]", "", value) for name, value in found.groupdict().items() if value}
    above = Fraction(part.get("a") or part.get("a1") or part.get("c") or part["decimal"])
    below = Fraction(part.get("b") or part.get("b1") or part.get("d") or part.get("under") or 1)
    whole = part.get("whole") or part.get("whole2")
    if below == 0 or (whole and not 0 <= above < below):  # 3\frac{5}{2} is a product, 7 5/2 a slip
        return None
    value = above / below + int(whole or 0)
    return -value if part.get("sign") == "-" else value


def _scale_of_unit(rest: str, before: str) -> int | None:
    """1 for a unit or nothing, 10^6 for ``million``; None where ``rest`` is more than a unit."""
    rest = _DEGREES.sub("", rest, count=1) if _DEGREES.match(rest) else rest
    scale, rest = 1, _POWER.sub("", rest)
    quoted = " ".join(_TEXT.findall(rest)).split()
    bare = _TEXT.sub(" ", rest)
    if bare.strip() and not quoted and before.isdigit() and bare[0].isalpha() and bare.strip() not in _SHORT_UNITS:
        return None  # 2b is a product, 2 balls are a count, 5km is a length
    words = [word for group in (quoted, bare.split()) for word in group]
    if len(words) > 5:
        return None
    for word in words:
        plain = word.strip("().,").lower()
        if plain in _SCALES:
            scale *= _SCALES[plain]
            continue
        is_word = plain not in _NO_UNIT and all(_WORD.fullmatch(part) for part in plain.split("/"))
        is_unit = word in quoted or len(plain) >= 4 or word in _SHORT_UNITS or plain in _LINKS
        if not (is_word and is_unit):
            return None
    return scale


# ── words ─────────────────────────────────────────────────────────────────────────────────────────


def _words(text: str) -> tuple[str, bool] | None:
    r"""The words of an answer in words, and whether it surely is one and no product of variables."""
    unwrapped = _TEXT.sub(r"\1", text).strip()
    if unwrapped.startswith("(") and unwrapped.endswith(")"):
        unwrapped = unwrapped[1:-1].strip()
    words = unwrapped.replace("-", " ").split()
    if not words or not all(_WORD.fullmatch(word) for word in words) or any(word in _NO_UNIT for word in words):
        return None
    return " ".join(words), unwrapped != text.strip("() ") or any(len(word) >= 4 for word in words)


def _stated(answer: str) -> str:
    """The answer itself; of a whole solution, what it states."""
    return (answer if len(answer) <= MAX_LENGTH else extract_answer(answer) or answer).strip()


def settle(gold: str | None, predicted: str | None) -> bool | None:
    r"""Whether two answers are equal; None where only computer algebra can tell.

    Exact for two plain numbers (0.333 is not 1/3). Nothing equals a missing or empty answer.

    >>> settle("1,000", "1000.0"), settle("0.333", "1/3"), settle("2x", "x + x")
    (True, False, None)
    """
    gold, predicted = _stated(gold or ""), _stated(predicted or "")
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
    a, b = _words(left), _words(right)
    if a and b:
        if a[0] == b[0]:
            return True
        if a[1] or b[1]:
            return a[0].casefold() == b[0].casefold()
    return None


def _compact(text: str) -> str:
    """Without spaces around punctuation. ``1 1/2`` keeps its space, for it is not 11/2."""
    return re.sub(r"\s*([^\w\s\\])\s*", r"\1", text)


def answer_key(answer: str | None) -> str | None:
    """A canonical key of a plain number: equal keys are equal answers. None for anything else.

    >>> answer_key("1,000.50"), answer_key("20%"), answer_key("x")
    ('2001/2', '20%', None)
    """
    found = number(answer) if answer else None
    return None if found is None else f"{found.value}{'%' if found.percent else ''}"
