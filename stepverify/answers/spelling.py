r"""Normalize the spelling of an answer by rules with tested examples.

LaTeX, Unicode, Markdown, Python, English and Chinese spell the same mathematics in many ways. Standard library only;
linear in the length.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

MAX_LENGTH = 2_000
"""Longest answer in characters that is parsed; a longer one only equals its own copy."""


class Rule(NamedTuple):
    """Hold a pattern, its replacement, and an example before and after it."""

    pattern: re.Pattern[str]
    replacement: str | Callable[[re.Match[str]], str]
    before: str
    after: str


def _rule(pattern: str, replacement: str | Callable[[re.Match[str]], str], before: str, after: str) -> Rule:
    return Rule(re.compile(pattern), replacement, before, after)


# ── characters ────────────────────────────────────────────────────────────────────────────────────

_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎", "0123456789+-=()")
_SIGNS = {
    "−": "-", "–": "-", "﹣": "-", "‐": "-", "‑": "-", "±": r"\pm ", "∓": r"\mp ", "×": r"\times ", "·": r"\cdot ",
    "⋅": r"\cdot ", "∙": r"\cdot ", "÷": r"\div ", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "∖": r"\setminus ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "…": r"\dots ", "⋯": r"\dots ",
    "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ", "〉": r"\rangle ", "∠": r"\angle ", "°": r"^\circ",
    "º": r"^\circ", "⁄": "/", "∕": "/", "∣": "|", "、": ",", "。": ".", "‘": "'", "’": "'", "“": '"', "”": '"',
    "π": r"\pi ", "θ": r"\theta ", "φ": r"\phi ", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u3000": " ",
    "\u200b": "", "\ufeff": "", "€": "$", "£": "$", "¥": "$", "₹": "$", "￥": "$",
}  # fmt: skip

CHARACTERS: tuple[Rule, ...] = (
    _rule(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ]+", lambda m: f"^{{{m[0].translate(_RAISED)}}}", "10⁻⁴x²", "10^{-4}x^{2}"),
    _rule(r"[₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎]+", lambda m: f"_{{{m[0].translate(_LOWERED)}}}", "101₂", "101_{2}"),
    _rule(
        r"[¼-¾⅐-⅞]", lambda m: r"\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", m[0]).split("⁄")),
        "2½", r"2\frac{1}{2}",
    ),
    _rule(r"√\s*(\d+(?:\.\d+)?)", r"\\sqrt{\1}", "2√12", r"2\sqrt{12}"),
    _rule(r"([√∛∜])\s*", lambda m: {"√": r"\sqrt ", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}[m[1]], "√(3)", r"\sqrt (3)"),
    _rule("|".join(_SIGNS), lambda m: _SIGNS[m[0]], "−3 ≤ x", r"-3 \le  x"),
    _rule(r"[\u0370-\u03ff]", lambda m: _greek(m[0]), "2α", r"2\alpha "),
    _rule(r"[^\x00-\x7f]", lambda m: unicodedata.normalize("NFKC", m[0]), "（１，２）", "(1,2)"),
)  # fmt: skip


def _greek(letter: str) -> str:
    name = unicodedata.name(letter, "").removeprefix("GREEK ").replace("LAMDA", "LAMBDA").lower().split()
    if len(name) == 3 and name[1] == "letter":
        return f"\\{name[2] if name[0] == 'small' else name[2].capitalize()} "
    return letter


# ── spellings ─────────────────────────────────────────────────────────────────────────────────────

_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp"

RULES: tuple[Rule, ...] = (
    _rule(r"^\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)$", r"\1", r"\boxed{1 \text{ or } 2", r"1 \text{ or } 2"),  # cut off
    _rule(r"\+/-", r"\\pm ", "+/-3", r"\pm 3"),
    _rule(r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset", r"\{\}", r"\emptyset"),
    _rule(r"\\lbrace(?![A-Za-z])", r"\\{", r"\lbrace 1", r"\{ 1"),
    _rule(r"\\rbrace(?![A-Za-z])", r"\\}", r"1\rbrace", r"1\}"),
    _rule(r"\\(?:l?dots|cdots|dotsc|dotsb)(?![A-Za-z])|\.{3,}", r"\\dots ", r"1, \ldots", r"1, \dots "),
    _rule(r",\s*\\!\s*|\{,\}\s*", ",", r"3,\!110{,}400", "3,110,400"),
    _rule(r"\\!", "", r"\!5", "5"),
    _rule(r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![A-Za-z])| {2,}", " ", r"1\,000~m", "1 000 m"),
    _rule(r"\\left(?![A-Za-z.])|\\right(?![A-Za-z.])|\\displaystyle(?![A-Za-z])", "", r"\left(1\right)", "(1)"),
    _rule(r"\\[bB]igg?[lr]?(?=[\[\](){}|\\])", "", r"\bigl(1\bigr)", "(1)"),
    _rule(r"\\(?:[dtc]frac|[ns]?icefrac|sfrac|flatfrac)(?![A-Za-z])", r"\\frac", r"\sfrac{3}{7}", r"\frac{3}{7}"),
    _rule(r"\\frac *(\d) *(\d)", r"\\frac{\1}{\2}", r"\frac123", r"\frac{1}{2}3"),  # TeX takes one digit each
    _rule(r"\\frac *(\d) *(?=\{)", r"\\frac{\1}", r"\frac1{2}", r"\frac{1}{2}"),
    _rule(r"(\\frac *\{[^{}]*\}) *(\d)", r"\1{\2}", r"\frac{1}2", r"\frac{1}{2}"),
    _rule(
        r"\\(?:textrm|textbf|textit|textsf|texttt|textnormal|mbox|hbox|mathrm|mathbf|mathit|operatorname|rm|bf)\s*(?=\{)",
        r"\\text", r"\textbf{(B)}", r"\text{(B)}",
    ),
    _rule(r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}", r"\\frac{\1}{\2}", r"{1\over2}", r"\frac{1}{2}"),
    _rule(r"\\[dt]?binom *(\d) *(\d)", r"\\binom{\1}{\2}", r"\binom52", r"\binom{5}{2}"),
    _rule(r"\\text\s+\{", r"\\text{", r"\text {m}", r"\text{m}"),
    _rule(r"\\(?:math(?:sf|tt|cal|frak)|boldsymbol|bm|emph|underline)\s*\{([^{}]*)\}", r"\1", r"\boldsymbol{5}", "5"),
    _rule(r"(?:\b(?:US|C|A|HK|NT|R|S))?\\?[$](?=\s*[\d.]|$|\s*-?\d)|\\[$]", "$", r"US\$5", "$5"),
    _rule(r"\\(?:pounds|euro|yen)(?![A-Za-z])", "$", r"\pounds 5", "$ 5"),
    _rule(
        r"(?i)^(?:rs\.?|inr|usd|eur|gbp|cad|aud|cny|rmb|php|hkd)\s*(?=-?[\d.])", "$", "Rs. 500", "$500"
    ),
    _rule(r"(?<!\\)\\(?=\d|$)", "", r"\15", "15"),  # stray
    _rule(r"(?<=[\w)}])\*\*(?=[\w({\\-])", "^", "x**2", "x^2"),  # a power in Python, not emphasis
    _rule(r"\^ *\(([^()]*)\)", r"^{\1}", "10^(-5)", "10^{-5}"),
    _rule(r"\^ *(-\d+)", r"^{\1}", "10^-5", "10^{-5}"),
    _rule(r"(?<=[\d.]) *[xX] *(?=10 *\^)", r" \\times ", "3.2 x 10^{5}", r"3.2 \times 10^{5}"),
    _rule(r"(?<![A-Za-z\\])(sqrt|pi|infinity|infty)(?![A-Za-z])", r"\\\1", "2pi/3", r"2\pi/3"),
    _rule(r"(?<![A-Za-z\\])inf(?=[\s)\],]|$)", r"\\infty", "(1, inf)", r"(1, \infty)"),
    _rule(rf"(?<![A-Za-z\\])({_FUNCTIONS})(?![A-Za-z])", r"\\\1", "n log n", r"n \log n"),
    _rule(r"\\exp *(?:\(([^()]*)\)|\{([^{}]*)\})", lambda m: f"e^{{{m[1] or m[2]}}}", r"\exp(9)", "e^{9}"),
    _rule(r"\\sqrt *\(([^()]*)\)", r"\\sqrt{\1}", r"\sqrt(2)", r"\sqrt{2}"),
    _rule(r"(\\sqrt *\[[^\[\]]*\]) *(\w)", r"\1{\2}", r"\sqrt[3]7", r"\sqrt[3]{7}"),
    _rule(
        r"\\frac *\{ *\\text\{([^{}]*)\} *\} *\{ *\\text\{([^{}]*)\} *\}", r"\\text{\1/\2}",
        r"\frac{\text{m}}{\text{s}}", r"\text{m/s}",
    ),
    _rule(r"\\text\{\s*,?\s*(and|or)\s*,?\s*\}", r" \1 ", r"1 \text{ or } 2", "1  or  2"),
    _rule(r"(?<=[\d})])(and|or)(?=[A-Z(\\\d-])", r" \1 ", "(1,2)or(2,1)", "(1,2) or (2,1)"),
    _rule(r"\+ *(?=\\infty)", "", r"(0, +\infty)", r"(0, \infty)"),
    _rule(r"\\infinity", r"\\infty", r"\infinity", r"\infty"),
    _rule(r"\\(?:leqslant|leq)(?![A-Za-z])|<=", r"\\le ", "x <= 3", r"x \le  3"),
    _rule(r"\\(?:geqslant|geq)(?![A-Za-z])|>=", r"\\ge ", "x >= 3", r"x \ge  3"),
    _rule(r"\\lt(?![A-Za-z])", "<", r"x \lt 3", "x < 3"),
    _rule(r"\\gt(?![A-Za-z])", ">", r"x \gt 3", "x > 3"),
    _rule(r"\\neq(?![A-Za-z])|(?<=[A-Za-z\s])!=", r"\\ne ", "k!=3", r"k\ne 3"),  # 5!=120 has a factorial
    _rule(r"\\[lr]?vert(?![A-Za-z])", "|", r"\lvert x\rvert", "| x|"),
    _rule(r"\\(?:Bbb|mathbb) *R(?![A-Za-z])|\\R(?![A-Za-z])", r"\\mathbb{R}", r"\Bbb R", r"\mathbb{R}"),
    _rule(r"\\backslash(?![A-Za-z])", r"\\setminus", r"\backslash", r"\setminus"),
    _rule(r"(?<=[\d)}])\s*或(?:者)?\s*(?=[-\d(\\])", " or ", "3或5", "3 or 5"),
    _rule(r"(?<=[\d)}])\s*[和与及]\s*(?=[-\d(\\])", " and ", "3和5", "3 and 5"),
    _rule(r"^(?:因此|所以)?,?(?:最终)?(?:的)?答案(?:是|为|:)+\s*", "", "答案是42", "42"),
    _rule(r"^(?i:(?:option|choice|answer)\s*:?\s*)(?=\(?[A-H]\)?$)", "", "Option E", "E"),
    _rule(r"^(?i:(?:final )?answer\s*[:=])\s*(?=\S)", "", "Answer: 42", "42"),
    _rule(r"^(?i:the (?:final |correct )?(?:answer|option|choice) is:?)\s+(?=\S)", "", "The answer is D", "D"),
    _rule(r"^(?i:negative|minus) (?=[\d.\\])", "-", "negative 42", "-42"),
    # the largest number is 34
    _rule(
        r"^\s*[A-Za-z][^\\$]*\b(?:is|are|equals) (?=[-+$\d.\\(\[](?:(?!\.\s).){0,60}$)", "",
        "the largest number is 34", "34",
    ),
    _rule(r"^\s*=\s*", "", "= 42", "42"),
)  # fmt: skip

_WRAPPERS = (
    ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), (r"\boxed{", "}"), ("**", "**"), ("*", "*"), ("`", "`"),
    ("'", "'"), ('"', '"'), ("__", "__"), (r"\text{", "}"),
)  # fmt: skip
_QUOTED = re.compile(r"\\text *\{[^{}]*\}")
_PROSE_WORD = re.compile(r"(?<![A-Za-z\\{])[A-Za-z][A-Za-z']+")
DELIMITED = re.compile(r"\$|\\boxed|\\\(|\\\[")
"""Delimiters within an answer: a sentence with formulas, or several formulas."""
_DIGITS = re.compile(r"-?\d(?:[\d,]*\d)?(?:\.\d+)?")
_ESCAPED_TWICE = re.compile(r"(?<!\\)\\\\(?:begin|[dtc]?frac|sqrt|text|left|boxed|pi|cdot|infty|le|ge)(?![A-Za-z])")


@lru_cache(maxsize=4096)
def normalize(answer: str) -> str:
    r"""Normalize the spelling of an answer without changing its mathematics.

    >>> normalize(r"$\left( 3,\!110, \dfrac12 \right)$"), normalize("`2½`")
    ('( 3,110, \\frac{1}{2} )', '2\\frac{1}{2}')
    """
    text = " ".join(answer.split())
    if _DIGITS.fullmatch(text):  # most answers; no rule applies
        return text
    if _ESCAPED_TWICE.search(text):  # JSON within JSON
        text = text.replace("\\\\", "\\")
    if not text.isascii():
        for rule in CHARACTERS:
            text = rule.pattern.sub(rule.replacement, text)
    text = _unwrap(_without_stop(text))
    for rule in RULES:
        text = rule.pattern.sub(rule.replacement, text)
    text = _without_stop(text.strip())
    if text.count("$") == 1:  # currency: a formula would have two delimiters
        text = text.replace("$", "")
    return text.strip()


def _without_stop(text: str) -> str:
    return text.rstrip(",;") if text.endswith("...") else text.rstrip(".,;")


def _unwrap(text: str) -> str:
    """Remove formula delimiters, emphasis and quotation marks around the whole text."""
    for left, right in _WRAPPERS:
        inner = text[len(left) : -len(right)]
        if text.startswith(left) and text.endswith(right) and inner and not _breaks_out(inner, left):
            if left == r"\text{" and not re.fullmatch(r"\s*[-+$]?[\d.,]+%?\s*", inner):
                continue  # words keep their frame, which marks them as words
            text = inner.strip()
    return text


def is_prose(text: str) -> bool:
    r"""Check for a sentence: more than three words outside ``\text``."""
    return len(_PROSE_WORD.findall(_QUOTED.sub("", text))) > 3


def _breaks_out(inner: str, left: str) -> bool:
    r"""Check whether the delimiters around ``inner`` are not a pair.

    For example ``$a$ or $b$``, ``\boxed{a},\boxed{b}``.
    """
    if not left.endswith("{"):
        return left in inner
    depth = 0
    for character in inner:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return True
    return False
