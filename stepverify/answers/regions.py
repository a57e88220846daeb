r"""Convert inequalities and set-builder notation to intervals of real numbers.

Standard library only. ``|x| < 3``, ``-3 < x < 3``, ``\{x : x^2 ... \}`` and ``]2, 5[`` become ``(-3,3)`` and so on, so
that only intervals are left to compare. Other forms are left to computer algebra.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from stepverify.answers.masking import mask, split

_VARIABLE = re.compile(r"(?:[A-Za-z]|\\(?:theta|alpha|beta|lambda|mu|phi))(?:_(?:\w|\{\w+\}))?(?:\s*\(\s*[a-z]\s*\))?")
_ABSOLUTE = re.compile(r"\|\s*([a-z])\s*(?:([-+])\s*([^|<>=]+?)\s*)?\|")
_OPERATOR = re.compile(r"<|>|\\(?:le|ge|ne)(?![A-Za-z])")
_BUILDER = re.compile(
    r"\\?\{\s*([a-zA-Z])\s*(?:\\in\s*\\mathbb\s*\{\s*R\s*\}\s*)?(?:\\mid|\\vert|\||:|\\colon)\s*(.+?)\s*\\?\}",
    re.DOTALL,
)
_REVERSED = re.compile(r"([\[\]])\s*([^\[\]]+?)\s*([,;])\s*([^\[\]]+?)\s*([\[\]])")
_REALS = re.compile(
    r"\\mathbb\{R\}|(?:\\text\{\s*)?(?:the set of )?all real (?:numbers|values)(?: [a-z])?\s*\}?", re.IGNORECASE
)
_WITHOUT = re.compile(
    r"(?:\\mathbb\{R\}|(?:\\text\{\s*)?all real numbers\s*\}?)\s*"
    r"(?:\\setminus|\\text\{\s*except\s*\}|except|-|\\)\s*\\?\{?\s*"
    r"(-?[^{},]+?(?:,[^{},]+?)*?)\s*\\?\}?"
)
_OR = re.compile(r"(?<![A-Za-z\\])or(?![A-Za-z])|\\lor(?![A-Za-z])|\\vee(?![A-Za-z])")
_AND = re.compile(r"(?<![A-Za-z\\])and(?![A-Za-z])|\\land(?![A-Za-z])|\\wedge(?![A-Za-z])")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}
_INFINITY = r"\infty"


class Region(NamedTuple):
    """Hold intervals as text, and the variable of an inequality, if any."""

    variable: str
    text: str


@lru_cache(maxsize=4096)
def region(text: str) -> Region | None:
    r"""Convert an inequality, set-builder notation or French interval to intervals.

    >>> [region(text) and region(text).text for text in ("|x| < 3", r"x < -1 or x \ge 2", "]2,5[", "x + y < 3")]
    ['(-3,3)', '(-\\infty,-1)\\cup[2,\\infty)', '(2,5)', None]
    """
    text = text.strip()
    if builder := _BUILDER.fullmatch(text):
        inner = region(builder[2])
        return inner._replace(variable="") if inner and inner.variable in (builder[1], "") else None
    if _REALS.fullmatch(text):
        return Region("", rf"(-{_INFINITY},{_INFINITY})")
    if (french := _REVERSED.fullmatch(text)) and (french[1] + french[5] != "[]"):
        left, right = "(" if french[1] == "]" else "[", ")" if french[5] == "[" else "]"
        return Region("", f"{left}{french[2]},{french[4]}{right}")
    if without := _WITHOUT.fullmatch(text):
        return _punctured("", [point.strip() for point in without[1].split(",")])
    for joint, combine in ((_OR, _union), (_AND, _intersection)):
        parts = split(text, joint)
        if len(parts) > 1:
            found = [region(part) for part in parts]
            return combine([part for part in found if part]) if all(found) else None
    return _chain(text)


def _chain(text: str) -> Region | None:
    """Convert one inequality, or a chain of two, to intervals.

    ``a < x <= b``, ``x > a``, ``|x - c| < r`` or ``x != a``.
    """
    masked = mask(text)
    operators = _OPERATOR.findall(masked)
    sides = split(text, _OPERATOR)
    if not operators or not all(sides) or len(sides) > 3 or "=" in masked:
        return None
    if len(sides) == 3:
        if (
            not _VARIABLE.fullmatch(sides[1])
            or r"\ne" in operators
            or len({op in ("<", r"\le") for op in operators}) > 1
        ):
            return None
        low, high = (sides[0], sides[2]) if operators[0] in ("<", r"\le") else (sides[2], sides[0])
        first, last = operators if operators[0] in ("<", r"\le") else operators[::-1]
        return Region(sides[1], f"{'[' if 'e' in first else '('}{low},{high}{']' if 'e' in last else ')'}")
    (left, right), operator = sides, operators[0]
    if not (_VARIABLE.fullmatch(left) or _ABSOLUTE.fullmatch(left)):
        left, right, operator = right, left, _FLIPPED[operator]
    closed = operator in (r"\le", r"\ge")
    if absolute := _ABSOLUTE.fullmatch(left):
        return _around(absolute, right, operator, closed)
    if not _VARIABLE.fullmatch(left):
        return None
    if operator == r"\ne":
        return _punctured(left, [point.strip() for point in right.split(",")])
    if operator in ("<", r"\le"):
        return Region(left, rf"(-{_INFINITY},{right}{']' if closed else ')'}")
    return Region(left, rf"{'[' if closed else '('}{right},{_INFINITY})")


def _around(absolute: re.Match[str], radius: str, operator: str, closed: bool) -> Region | None:
    variable, sign, shift = absolute[1], absolute[2], absolute[3]
    simple = re.fullmatch(r"[\w.]+", radius)
    if operator == r"\ne":
        return None
    center = "" if sign is None else shift if sign == "-" else f"-({shift})"
    low, high = (f"{center}-{radius if simple else f'({radius})'}", f"{center}+{radius}" if center else radius)
    if operator in ("<", r"\le"):
        return Region(variable, f"{'[' if closed else '('}{low},{high}{']' if closed else ')'}")
    return Region(
        variable, rf"(-{_INFINITY},{low}{']' if closed else ')'}\cup{'[' if closed else '('}{high},{_INFINITY})"
    )


def _punctured(variable: str, points: list[str]) -> Region | None:
    """Write all real numbers except some points as intervals.

    Several points must be plain numbers, to be sorted.
    """
    from stepverify.answers.number import number

    values = [(found.value, point) for point in points if (found := number(point))]
    if len(values) < len(points) and len(points) > 1:
        return None
    ends = (
        [rf"-{_INFINITY}", *(point for _, point in sorted(values)), _INFINITY]
        if values
        else [rf"-{_INFINITY}", points[0], _INFINITY]
    )
    return Region(variable, r"\cup".join(f"({low},{high})" for low, high in pairwise(ends)))


def _union(parts: list[Region]) -> Region | None:
    variables = {part.variable for part in parts}
    return Region(parts[0].variable, r"\cup".join(part.text for part in parts)) if len(variables) == 1 else None


def _intersection(parts: list[Region]) -> Region | None:
    """Intersect a lower and an upper bound."""
    if len(parts) != 2 or parts[0].variable != parts[1].variable or any(r"\cup" in part.text for part in parts):
        return None
    upper, lower = sorted(parts, key=lambda part: part.text.startswith(rf"(-{_INFINITY},"), reverse=True)
    if not upper.text.startswith(rf"(-{_INFINITY},") or not lower.text.endswith(rf",{_INFINITY})"):
        return None
    high = upper.text.removeprefix(rf"(-{_INFINITY},")
    return Region(parts[0].variable, f"{lower.text.removesuffix(rf',{_INFINITY})')},{high}")
