r"""Split text into steps at a separator, and join steps to text again.

The two are inverse: joined steps fall apart into the same steps, and a text that was split and joined into itself,
apart from blank space around its steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from stepverify.records import InputError

NUMBER = "{i}"
_OPENING = re.compile(r"^[^\S\n]*(?P<fence>`{3,}|~{3,})[^\n]*$|\$\$|(?<!\\)\\\[", re.MULTILINE)


@dataclass(frozen=True)
class StepPattern:
    r"""Separate steps by a regular expression.

    Attributes:
        regex: ends a step wherever it matches (Python's ``re``, ``^`` and ``$`` at every line). What it matches belongs
            to no step, what it looks ahead to begins the next one: ``\n(?=\d+\. )``.
        text: text that is written after every step.
    """

    regex: str
    text: str = "\n"


Separator = str | StepPattern


def check_separator(separator: Separator) -> None:
    """Refuse a separator that cannot separate steps.

    Raises:
        InputError: a text that neither begins with a line end nor is a heading, or a regular expression that is broken
            or matches everywhere.
    """
    key = "template.step_separator"
    if isinstance(separator, StepPattern):
        try:
            found = re.compile(separator.regex)
        except re.error as error:
            raise InputError(f"{key}.regex: {separator.regex!r}: {error}") from None
        if found.match(""):
            raise InputError(f"{key}.regex: {separator.regex!r} matches an empty text, so everywhere")
        if not separator.text:
            raise InputError(f"{key}.text: expected the text between two steps, got ''")
    elif not separator.startswith("\n") and NUMBER not in separator:
        raise InputError(f"{key}: expected a line end first, or a heading with {NUMBER}, got {separator!r}")


def joint(separator: Separator) -> str:
    """Return the text that is written after every step."""
    if isinstance(separator, StepPattern):
        return separator.text
    if NUMBER in separator:  # the heading itself belongs to the next step
        return separator[: len(separator) - len(separator.lstrip("\n"))] or "\n"
    return separator


def split_steps(text: str, separator: Separator) -> list[str]:
    r"""Split a text into steps, without blank space around them.

    A single line end makes every line a step. Anything else leaves steps of several lines whole: several line ends are
    blank lines, and a heading such as ``Step {i}:``, Markdown before it or not, begins a step. No separator counts
    within a closed code block (``` or ~~~), ``$$ … $$`` or ``\[ … \]``; one that is never closed is plain text.
    ``\r\n`` is a line end; separators at the start, at the end and after one another separate nothing.
    """
    if separator == "\n":
        pieces: Sequence[str] = text.splitlines()
    else:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if isinstance(separator, str):  # a final separator may have lost its line end
            text = text.rstrip() + separator[len(separator.rstrip()) :]
        pieces = list(_cut(text, _pattern(separator)))
    steps = [step for piece in pieces if (step := piece.strip())]
    # An expression may look ahead at blank space that a step has lost: what no longer separates when joined never does.
    if isinstance(separator, StepPattern):
        again = [step for piece in _cut(separator.text.join(steps), _pattern(separator)) if (step := piece.strip())]
        return steps if len(again) >= len(steps) else split_steps(separator.text.join(steps), separator)
    return steps


@cache
def heading(separator: Separator) -> re.Pattern[str] | None:
    """Return what a step begins with, if the separator is a heading."""
    if isinstance(separator, StepPattern) or NUMBER not in separator:
        return None
    words = r"\d+".join(map(re.escape, separator.lstrip("\n").split(NUMBER)))
    return re.compile(rf"[#>*_ \t]*{words}")


def stop_texts(separator: Separator) -> list[str]:
    r"""Return texts of which one is written after every step.

    Of a heading these are its first words on a new line, with Markdown before them or not.

    Raises:
        InputError: a regular expression, whose matches may depend on what follows them.
    """
    if isinstance(separator, StepPattern):
        raise InputError(
            f"template.step_separator: {separator.regex!r}: a step cannot be stopped at by a regular expression; use a "
            "text such as '\\n\\n', or a heading such as 'Step {i}:'"
        )
    if NUMBER not in separator:
        return [separator]
    words = separator.lstrip("\n").split(NUMBER)[0]
    return [f"\n{mark}{words}" for mark in ("", "**", "## ", "### ", "#### ")]


@cache
def _pattern(separator: Separator) -> re.Pattern[str]:
    if isinstance(separator, StepPattern):
        return re.compile(separator.regex, re.MULTILINE)
    if not separator.strip("\n"):
        return re.compile(rf"\n(?:[^\S\n]*\n){{{len(separator) - 1},}}")
    begun = heading(separator)
    return re.compile(rf"\n(?={begun.pattern})" if begun else re.escape(separator))


def _cut(text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    whole, start = [*_protected(text)], 0
    for found in pattern.finditer(text):
        while whole and whole[0][1] <= found.start():
            whole.pop(0)
        if whole and whole[0][0] < found.start():
            continue
        yield text[start : found.start()]
        start = found.end()
    yield text[start:]


def in_block(text: str, separator: Separator) -> bool:
    """Tell whether a text ends within a code block or displayed formula, where no separator counts once it is closed.

    Lines are steps wherever they stand, so a single line end always counts.
    """
    unclosed = set[str]()
    for _ in () if separator == "\n" else _protected(text, unclosed):
        pass
    return bool(unclosed)


def _protected(text: str, unclosed: set[str] | None = None) -> Iterator[tuple[int, int]]:
    """Yield the spans of code blocks and displayed formulas, in order; linear in the length but for open fences.

    Marks that are never closed are added to ``unclosed``.
    """
    at, unclosed = 0, set() if unclosed is None else unclosed
    while opened := _OPENING.search(text, at):
        at, mark = opened.end(), opened["fence"] or opened[0]
        if mark in unclosed:
            continue
        if opened["fence"]:
            closing = re.compile(rf"^[^\S\n]*{mark}{re.escape(mark[0])}*[^\S\n]*$", re.MULTILINE).search(text, at)
            end = closing.end() if closing else -1
        else:
            close = "$$" if mark == "$$" else "\\]"
            end = found + len(close) if (found := text.find(close, at)) >= 0 else -1
        if end < 0:
            unclosed.add(mark)
        else:
            yield opened.start(), end
            at = end
