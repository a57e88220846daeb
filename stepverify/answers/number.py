r"""Parse plain numbers exactly.

A plain number is an integer, a decimal (``0.1\overline{6}`` too), a fraction ``a/b`` or ``\frac{a}{b}``, a mixed
number, a power of ten (``1.2 \times 10^5``) or a number in words (``forty-two``), with or without thousands separators,
currency, percent or degree sign, unit and modulus; or an integer with its base (``4210_7``, ``0x1F``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from stepverify.answers.spelling import MAX_LENGTH, normalize
from stepverify.answers.units import PARTS, scale_of_unit

MAX_DIGITS = 100
"""Longest plain number in characters: no answer exceeds 10^100, and exact arithmetic on it is fast."""


@dataclass(frozen=True, slots=True)
class Number:
    """Hold a plain number; ``percent`` if written with a percent sign.

    ``20%`` has value 20.
    """

    value: Fraction
    percent: bool = False
    modulus: int | None = None

    def equals(self, other: Number) -> bool:
        """Compare values.

        ``20%`` equals 20 or 1/5 if the other has no percent sign.

        A modulus counts if both have one: 19 (mod 12) is 7 (mod 12), and neither is 7 (mod 5).
        """
        if self.modulus and other.modulus:
            return self.modulus == other.modulus and (self.value - other.value) % self.modulus == 0
        if self.value == other.value or self.percent == other.percent:
            return self.value == other.value
        return self.value == other.value * 100 if self.percent else self.value * 100 == other.value

    @property
    def key(self) -> str:
        """Return a canonical text: numbers with equal keys are equal."""
        return f"{self.value}{'%' if self.percent else ''}{f' mod {self.modulus}' if self.modulus else ''}"


_DECIMAL = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?![\d,])(?:\.\d+)?|[1-9]\d{0,2}(?: \d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
_TEN_TO = r"\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*(?P<power>-?\d{1,2})\s*\}|(?P<power1>\d)(?![\d^]))"
_NUMBER = re.compile(
    rf"""
    (?P<sign>[-+]?) \s*
    (?: (?:(?P<whole>\d+)\s*)? \\frac\s*
        \{{\s*(?P<above>-?\s*{_DECIMAL})\s*\}} \s* \{{\s*(?P<below>-?\s*{_DECIMAL})\s*\}}
      | (?:(?P<whole1>\d+)\ +)? (?P<above1>\d+)\s*/\s*(?P<below1>\d+)
      | (?P<fixed>\d*\.\d*) \s* (?: \\(?:overline|bar)\s* \{{\s*(?P<repeating>\d+)\s*\}} | \((?P<repeating1>\d+)\)
                                  | (?P<dotted>\\dot\s*\{{?\d\}}?(?:\d*\\dot\s*\{{?\d\}}?)?) )
      | (?P<decimal>{_DECIMAL}) (?: \s*/\s*(?P<below2>{_DECIMAL}) | {_TEN_TO} | [eE](?P<power2>[-+]?\d{{1,2}})(?!\d) )?
    )
    """.replace(" \\d{3}", "[ ]\\d{3}"),  # VERBOSE would drop the space that separates thousands
    re.VERBOSE,
)  # fmt: skip
_BASES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "sixteen": 16, "binary": 2, "octal": 8, "decimal": 10, "hexadecimal": 16,
}  # fmt: skip
_DIGITS = r"(?:\\text\s*)?[({]?\s*(?P<digits>[0-9A-Za-z]{1,100})\s*[)}]?"
_BASED = re.compile(
    rf"{_DIGITS}(?:\s*_\s*\{{?\s*\(?\s*(?:\\text\{{)?\s*(?P<base>[a-z]+|\d{{1,2}})\s*\}}?\s*\)?\s*\}}?"
    rf"|\s*,?\s*\(?\s*(?:in )?base[ -](?P<base1>[a-z]+|\d{{1,2}})\s*\)?)"
)
_PROGRAMMED = re.compile(r"0([xXbBoO])([0-9A-Fa-f]{1,100})")
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{\s*(?:percent|percentage|pct|\\?%)\s*\}|(?:percentage|percent|pct)\b)\s*")
_MODULUS = re.compile(
    r"\s*(?:\\pmod\s*|\\[bm]mod\s*|\(\s*(?:\\text\{)?mod\}?\s*|\bmod(?:ulo)?\s+)\{?\s*(\d{1,9})\s*\}?\)?$"
)
_POWERS = {"squared": 2, "cubed": 3}
_NUMERAL = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|"
    "nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion"
)
_IN_WORDS = re.compile(
    r"(?:\\text\{\s*)?(?P<sign>(?:negative|minus) )?"
    rf"(?P<words>(?:{_NUMERAL})(?:(?: and |[ -])(?:{_NUMERAL}))*)\b"
    rf"(?:[ -](?P<part>{'|'.join(PARTS)})s?\b|(?!-))\s*(?P<end>\}}?)",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def number(answer: str) -> Number | None:
    r"""Parse a plain number; None for anything else.

    Units are dropped, not converted: the question fixes them (``5 \text{ cm}`` is 5).

    >>> [str(number(text).value) for text in (r"\$1,\!000.50", r"2\frac12 \text{ hours}", "forty-two", "4210_7")]
    ['2001/2', '5/2', '42', '1477']
    """
    if len(answer) > MAX_LENGTH:
        return None
    text = normalize(answer)
    if len(text) > 2 and text[0] == "(" and text[-1] == ")" and _NUMBER.fullmatch(text, 1, len(text) - 1):
        if "," in text:
            return None  # (1,200) is a point
        text = text[1:-1]
    if based := _based(text):
        return based
    text = _in_digits(text)
    modulus = None
    if modular := _MODULUS.search(text):
        text, modulus = text[: modular.start()], int(modular[1]) or None
    found = _NUMBER.match(text)
    if not found or len(found[0]) > MAX_DIGITS:
        return None
    value = _value(found)
    rest = text[found.end() :]
    if value is None:
        return None
    if power := _POWERS.get(re.sub(r"\\text|[{}\s]", "", rest)):
        return Number(value**power)
    if _PERCENT.fullmatch(rest):
        return Number(value, percent=True)
    scale = scale_of_unit(rest)
    return None if scale is None else Number(value * scale, modulus=modulus)


def _based(text: str) -> Number | None:
    r"""Parse ``4210_{7}``, ``(101)_{\text{two}}``, ``A3F_{16}`` or ``0x1F``; letters alone are variables."""
    if programmed := _PROGRAMMED.fullmatch(text):
        digits, base = programmed[2], {"x": 16, "b": 2, "o": 8}[programmed[1].lower()]
    elif ("_" in text or "base" in text) and (found := _BASED.fullmatch(text)):
        digits, name = found["digits"], found["base"] or found["base1"]
        base = int(name) if name.isdigit() else _BASES.get(name, 0)
        if not any(map(str.isdigit, digits)) and not (base == 16 and len(digits) > 1 and digits.isupper()):
            return None  # a_{11} and F_{16} are sequence terms
    else:
        return None
    try:
        return Number(Fraction(int(digits, base))) if base >= 2 else None
    except ValueError:
        return None


def _in_digits(text: str) -> str:
    """Replace a number in words at the start by digits."""
    found = _IN_WORDS.match(text)
    if not found or bool(found["end"]) != (found[0].lstrip()[:1] == "\\"):
        return text
    from text_to_num import text2num

    try:
        value = text2num(found["words"].lower().replace(" and ", " "), "en")
    except ValueError:  # "one two" is not a number
        return text
    part = f"/{PARTS[found['part'].lower()]}" if found["part"] else ""
    return f"{'-' if found['sign'] else ''}{value}{part} {text[found.end() :]}".strip()


def _value(found: re.Match[str]) -> Fraction | None:
    part = {name: re.sub(r"[ ,]", "", text) for name, text in found.groupdict().items() if text}
    if "dotted" in part:  # 0.1\dot{4}285\dot{7}: from the first dot to the last
        part["repeating"] = re.sub(r"\D", "", part["dotted"])
    if repeating := part.get("repeating") or part.get("repeating1"):
        value, whole = _repeating(part["fixed"], repeating), None
    else:
        above = Fraction(part.get("above") or part.get("above1") or part["decimal"])
        below = Fraction(part.get("below") or part.get("below1") or part.get("below2") or 1)
        whole = part.get("whole") or part.get("whole1")
        if below == 0 or (whole and not 0 <= above < below):  # 3\frac{5}{2} is a product, 7 5/2 an error
            return None
        value = above / below * Fraction(10) ** int(part.get("power") or part.get("power1") or part.get("power2") or 0)
    value += int(whole or 0)
    return -value if part.get("sign") == "-" else value


def _repeating(fixed: str, repeating: str) -> Fraction:
    r"""Compute ``0.1\overline{6}``: 1/10 + 6/90."""
    decimals = len(fixed.partition(".")[2])
    period = Fraction(int(repeating), (10 ** len(repeating) - 1) * 10**decimals)
    return Fraction(f"0{fixed}0") + period  # 0 around: "." alone is the start of .\overline{3}
