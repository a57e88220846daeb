r"""One spelling for what LaTeX, English and Python spell in many ways. Standard library only; linear in the length."""

from __future__ import annotations

import re
from functools import lru_cache

MAX_LENGTH = 2_000
"""Characters of an answer that is looked at; a longer one equals its own copy only."""

_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[−–﹣-]", "-"),
        (r"±|\+/-", r"\\pm "),
        (r"×", r"\\times "),
        (r"\\varnothing(?![A-Za-z])|∅", r"\\emptyset"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r",\s*\\!\s*|\{,\}\s*", ","),  # 3,\!110 and 3{,}110
        (r"\\!", ""),
        (r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![A-Za-z])|[\s\u00a0\u2009\u202f]+", " "),
        (r"\\left(?![A-Za-z.])|\\right(?![A-Za-z.])|\\displaystyle(?![A-Za-z])", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac *(\d) *(\d)", r"\\frac{\1}{\2}"),  # TeX takes one digit each: \frac123 is 3/2
        (r"\\frac *(\d) *(?=\{)", r"\\frac{\1}"),
        (r"(\\frac *\{[^{}]*\}) *(\d)", r"\1{\2}"),
        (r"\\(?:textrm|textbf|textit|textnormal|mbox|hbox|mathrm|mathbf|mathit|operatorname)\s*(?=\{)", r"\\text"),
        (r"\\text\s+\{", r"\\text{"),
        (r"\\[$]|\\(?:pounds|euro)(?![A-Za-z])|[€£¥₹]", "$"),
        (r"(?<!\\)\\(?=\d|$)", ""),  # stray: \15 and 185\
        (r"(?<=[\w)}])\*\*(?=[\w({\\-])", "^"),  # a power in Python, not emphasis
        (r"(?<![A-Za-z\\])(sqrt|pi|infinity)(?![A-Za-z])", r"\\\1"),  # 2pi/3, sqrt2
        (r"\\sqrt *\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\frac *\{ *\\text\{([^{}]*)\} *\} *\{ *\\text\{([^{}]*)\} *\}", r"\\text{\1/\2}"),  # metres per second
        (r"\\infinity", r"\\infty"),
        # the largest number is 34
        (r"^\s*[A-Za-z][^\\$]*\b(?:is|are|equals) (?=[-+$\d.\\(\[](?:(?!\.\s).){0,60}$)", ""),
    )
)
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), (r"\boxed{", "}"), ("**", "**"))
_PROSE_WORD = re.compile(r"(?<![A-Za-z\\{])[A-Za-z][A-Za-z']+")
_ESCAPED_TWICE = re.compile(r"(?<!\\)\\\\(?:begin|[dtc]?frac|sqrt|text|left|boxed|pi|cdot|infty)(?![A-Za-z])")


@lru_cache(maxsize=4096)
def normalize(answer: str) -> str:
    r"""One spelling for what LaTeX and English spell in many ways; the mathematics stays as it is.

    >>> normalize(r"$\left( 3,\!110, \dfrac12 \right)$")
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


def is_prose(text: str) -> bool:
    r"""Whether a text has more than three words outside ``\text``: no answer itself, though it may give one."""
    return len(_PROSE_WORD.findall(text)) > 3


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
