r"""Plain numbers, read exactly. Standard library only.

A plain number is an integer, a decimal (``0.1\overline{6}`` too), a fraction ``a/b`` or ``\frac{a}{b}``, a mixed
number or a power of ten (``1.2 \times 10^5``), with or without thousands separators, currency, percent or degree
sign and unit, or an integer with its base (``4210_7``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from stepverify.answers.spelling import MAX_LENGTH, normalize

MAX_DIGITS = 100
"""Characters of a plain number: 10^100 is beyond any answer, and exact arithmetic on it costs nothing."""


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


_DECIMAL = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?![\d,])(?:\.\d+)?|[1-9]\d{0,2}(?: \d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
_TEN_TO = r"\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*(?P<power>-?\d{1,2})\s*\}|(?P<power1>\d)(?![\d^]))"
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?) \s*
    (?: (?:(?P<whole>\d+)\s*)? \\frac\s*
        \{{\s*(?P<above>-?\s*{_DECIMAL})\s*\}} \s* \{{\s*(?P<below>-?\s*{_DECIMAL})\s*\}}
      | (?:(?P<whole1>\d+)\ +)? (?P<above1>\d+)\s*/\s*(?P<below1>\d+)
      | (?P<fixed>\d*\.\d*) \s* \\(?:overline|bar)\s* \{{\s*(?P<repeating>\d+)\s*\}}
      | (?P<decimal>{_DECIMAL}) (?: \s*/\s*(?P<below2>{_DECIMAL}) | {_TEN_TO} | [eE](?P<power2>[-+]?\d{{1,2}})(?!\d) )?
    )
    """.replace(" \\d{3}", "[ ]\\d{3}"),  # VERBOSE would drop the space that separates thousands
    re.VERBOSE,
)  # fmt: skip
_BASED = re.compile(r"(\d{1,100})_(?:(\d)|\{\s*(?:\\text\{)?(\d{1,2})\}?\s*\})")
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:percent|pct|\\?%)\s*\}|percent\b|pct\b)\s*")
_DEGREES = re.compile(r"\s*(?:\^\s*(?:\\circ|\{\s*\\circ\s*\})|°|\\degree)\s*[CF]?")
_ORDINAL = re.compile(r"\s*\^?\s*(?:\{\s*)?\\text\{\s*(?:st|nd|rd|th)\s*\}(?:\s*\})?|(?:st|nd|rd|th)(?![A-Za-z])")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_POWER = re.compile(r"(?<=[A-Za-z}])\s*(?:\^\s*(?:\d|\{\d\})|[²³])")  # of a unit: 2^3 is no 2
_WORD = re.compile(r"[A-Za-z]+")
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}


def _word_set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SHORT_UNITS = _word_set(
    "mm cm dm km m ft in yd mi g kg mg lb lbs oz s sec min h hr hrs mph kph km/h m/s ml mL L day men USD"
)
_LINKS = _word_set("of per the a an")
NO_UNIT = _word_set(
    "and or to plus minus times over by than less more mod modulo base remainder if when not am pm half "
    "sqrt sin cos tan cot sec csc log ln exp pi theta alpha beta gamma delta omega infinity infty pmod choose"
)
"""Words after a number that are no unit: they join, change or name something else."""


@lru_cache(maxsize=4096)
def number(answer: str) -> Number | None:
    r"""Read a plain number; None for anything else.

    Units are dropped, not converted: the question fixes them (``5 \text{ cm}`` is 5).

    >>> number(r"\$1,\!000.50"), number(r"2\frac12 \text{ hours}")
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
        scale = scale_of_unit(rest)
    return None if value is None or scale is None else Number(value * scale, percent=bool(percent))


def _in_base(digits: str, base: int) -> Number | None:
    """The value of ``4210_{7}``."""
    if not 2 <= base <= 10 or int(max(digits)) >= base:
        return None
    return Number(Fraction(int(digits, base)))


def _value(found: re.Match[str]) -> Fraction | None:
    part = {name: re.sub(r"[ ,]", "", text) for name, text in found.groupdict().items() if text}
    if "repeating" in part:
        value, whole = _repeating(part["fixed"], part["repeating"]), None
    else:
        above = Fraction(part.get("above") or part.get("above1") or part["decimal"])
        below = Fraction(part.get("below") or part.get("below1") or part.get("below2") or 1)
        whole = part.get("whole") or part.get("whole1")
        if below == 0 or (whole and not 0 <= above < below):  # 3\frac{5}{2} is a product, 7 5/2 a slip
            return None
        value = above / below * Fraction(10) ** int(part.get("power") or part.get("power1") or part.get("power2") or 0)
    value += int(whole or 0)
    return -value if part.get("sign") == "-" else value


def _repeating(fixed: str, repeating: str) -> Fraction:
    r"""The value of ``0.1\overline{6}``: 1/10 + 6/90."""
    decimals = len(fixed.partition(".")[2])
    period = Fraction(int(repeating), (10 ** len(repeating) - 1) * 10**decimals)
    return Fraction(f"0{fixed}0") + period  # 0 around: "." alone is the start of .\overline{3}


def scale_of_unit(rest: str) -> int | None:
    """1 for a unit or nothing behind a value, 10^6 for ``million``; None where ``rest`` is more than a unit."""
    if mark := _DEGREES.match(rest) or _ORDINAL.match(rest):
        rest = rest[mark.end() :]
    scale, rest = 1, _POWER.sub("", rest)
    quoted = " ".join(_TEXT.findall(rest)).split()
    bare = _TEXT.sub(" ", rest)
    glued = bare.strip() if not quoted and bare[:1].isalpha() else ""
    if glued and (len(glued) == 1 or glued not in _SHORT_UNITS):
        return None  # 2b and 2s are products, 2 balls are a count, 5km is a length
    words = [word for group in (quoted, bare.split()) for word in group]
    if len(words) > 5:
        return None
    for word in words:
        plain = word.strip("().,").lower()
        if plain in _SCALES:
            scale *= _SCALES[plain]
            continue
        is_word = plain not in NO_UNIT and all(_WORD.fullmatch(part) for part in plain.split("/"))
        is_unit = word in quoted or len(plain) >= 4 or word in _SHORT_UNITS or plain in _LINKS
        if not (is_word and is_unit):
            return None
    return scale
