"""Split a text at separators outside brackets.

Standard library only; linear in the length.
"""

from __future__ import annotations

import re
from functools import lru_cache

BRACKET = re.compile(
    r"(?P<open>\\begin\{\w+\}|\\\{|\\langle(?![A-Za-z])|[(\[{])|(?P<close>\\end\{\w+\}|\\\}|\\rangle(?![A-Za-z])|[)\]}])"
    r"|\\[A-Za-z]+|\\.",
    re.DOTALL,
)


@lru_cache(maxsize=4096)
def mask(text: str) -> str:
    """Replace everything within brackets by NUL; return "" for unpaired brackets."""
    masked, depth, last = [], 0, 0
    for found in BRACKET.finditer(text):
        masked.append("\0" * (found.start() - last) if depth else text[last : found.start()])
        depth -= found["close"] is not None
        if depth < 0:
            return ""
        masked.append("\0" * len(found[0]) if depth else found[0])
        depth += found["open"] is not None
        last = found.end()
    return "" if depth else "".join((*masked, text[last:]))


def split(text: str, separator: re.Pattern[str], masked: str | None = None) -> list[str]:
    """Split a text at the separators outside brackets."""
    parts, last = [], 0
    for found in separator.finditer(mask(text) if masked is None else masked):
        parts.append(text[last : found.start()].strip())
        last = found.end()
    return [*parts, text[last:].strip()]
