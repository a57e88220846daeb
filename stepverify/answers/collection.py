r"""Answers of several parts: lists, sets, tuples, intervals, matrices, systems of equations. Standard library only.

Parts are compared one by one. Most are plain numbers, so that most collections are compared exactly and at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from stepverify.answers.spelling import MAX_LENGTH, is_prose, normalize

MAX_PARTS = 16
"""Parts of a collection that is taken apart, for every part of a list is compared with every part of another one."""

Same = Callable[[str, str], bool | None]
Table = list[list[bool]]


@dataclass(frozen=True, slots=True)
class Collection:
    """An answer of two or more parts.

    Attributes:
        kind: ``list`` (``1, 2``: in any order), ``set``, ``system`` (``x = 1, y = 2``: equations whose left sides
            differ), the brackets of a tuple or interval (``(]``; a column vector is a tuple), or ``matrix 3``, a
            matrix with three columns.
    """

    kind: str
    parts: tuple[str, ...]


# ── taking apart ──────────────────────────────────────────────────────────────────────────────────

_BRACKET = re.compile(
    r"(?P<open>\\begin\{\w+\}|\\\{|[(\[{])|(?P<close>\\end\{\w+\}|\\\}|[)\]}])|\\[A-Za-z]+|\\.", re.DOTALL
)
_WHOLE = re.compile(r"(\\\{|[(\[{])\0+(\\\}|[)\]}])")  # of a masked text
_ENVIRONMENT = re.compile(r"\\begin\{(?P<name>cases|[pb]?matrix)\}(?P<rows>.*)\\end\{(?P=name)\}", re.DOTALL)
_QUOTED_JOIN = re.compile(r"\\text\{\s*,?\s*(and|or)\s*,?\s*\}")
_QUOTED_LIST = re.compile(r"\\text\{([^{}]*(?:,|\b(?:and|or)\b)[^{}]*)\}")
_JOIN = re.compile(r"(?:,\s*)?(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|;")
_THOUSANDS = re.compile(r"(?<![\d.])(?:0|[1-9]\d{0,2})(?:,\d{3})+(?!\d|,\d)")  # 0,111 is a decimal to some
_DELIMITED = re.compile(r"\$|\\boxed|\\\(|\\\[")


@lru_cache(maxsize=4096)
def take_apart(answer: str) -> Collection | None:
    r"""The parts of an answer; None where it is a single thing, or has more than 16 parts.

    ``a \pm b`` is a list of two. A comma in a number of thousands separates nothing, except within brackets where no
    other comma stands: (1,200) is a point.

    >>> take_apart(r"(1, \frac12]"), take_apart("32,349")
    (Collection(kind='(]', parts=('1', '\\frac{1}{2}')), None)
    >>> take_apart(r"x = 3 \text{ or } x = \pm 4").parts
    ('x = 3', 'x = 4', 'x = -4')
    """
    if len(answer) > MAX_LENGTH:
        return None
    text = normalize(answer)
    if _DELIMITED.search(text):
        return None  # $1$ and $2$, or prose
    if environment := _ENVIRONMENT.fullmatch(text):
        return _of_rows(environment["rows"], cases=environment["name"] == "cases")
    whole = _WHOLE.fullmatch(_mask(text))
    if whole and r"\pm" not in text:
        inner = text[whole.end(1) : whole.start(2)]
        kind = "set" if whole[1][-1] == "{" else whole[1] + whole[2]
        return None if r"\{" in inner else _collection(kind, _commas(inner, thousands=", " in inner))
    text = _QUOTED_LIST.sub(r"\1", _QUOTED_JOIN.sub(r" \1 ", text))
    groups = _split(text, _JOIN)
    if len(groups) > 1 and all(_is_system(_commas(group)) for group in groups):
        return _collection("list", groups)  # x = 1, y = 2 or x = 2, y = 1
    parts = [branch for group in groups for part in _commas(group) for branch in _branches(part)]
    return _collection("system" if _is_system(parts) else "list", parts)


def _collection(kind: str, parts: list[str]) -> Collection | None:
    return (
        Collection(kind, tuple(parts))
        if 2 <= len(parts) <= MAX_PARTS and all(parts) and not any(map(is_prose, parts))
        else None
    )


def _of_rows(text: str, cases: bool) -> Collection | None:
    rows = [_split(row, re.compile("&")) for row in _split(text, re.compile(r"\\\\"))]
    rows = rows[:-1] if rows[-1] == [""] else rows  # a break behind the last row
    cells = [cell for row in rows for cell in row]
    if len({len(row) for row in rows}) != 1:
        return None
    if cases:
        return _collection("system", cells) if _is_system(cells) else None
    return _collection("()" if len(rows[0]) == 1 else f"matrix {len(rows[0])}", cells)


def _mask(text: str) -> str:
    """The text with everything within brackets made NUL; empty where brackets are not in pairs."""
    masked, depth, last = [], 0, 0
    for found in _BRACKET.finditer(text):
        masked.append("\0" * (found.start() - last) if depth else text[last : found.start()])
        depth -= found["close"] is not None
        if depth < 0:
            return ""
        masked.append("\0" * len(found[0]) if depth else found[0])
        depth += found["open"] is not None
        last = found.end()
    return "" if depth else "".join((*masked, text[last:]))


def _split(text: str, separator: re.Pattern[str], masked: str | None = None) -> list[str]:
    """Cut a text at the separators that are within no brackets."""
    parts, last = [], 0
    for found in separator.finditer(_mask(text) if masked is None else masked):
        parts.append(text[last : found.start()].strip())
        last = found.end()
    return [*parts, text[last:].strip()]


def _commas(text: str, thousands: bool = True) -> list[str]:
    """Cut a text at its commas, but not at those of thousands."""
    masked = _mask(text)
    if thousands:
        masked = _THOUSANDS.sub(lambda found: found[0].replace(",", "\0"), masked)
    return _split(text, re.compile(","), masked)


def _branches(part: str) -> list[str]:
    if part.count(r"\pm") != 1 or r"\mp" in part:
        return [part]
    before, _, after = (piece.strip() for piece in part.partition(r"\pm"))
    plus = "" if not before or before[-1] in "=([{," else "+"
    return [f"{before} {sign}{after}".strip() for sign in (plus, "-")]


def _is_system(parts: list[str]) -> bool:
    sides = [re.split(r"(?<![<>!:\\])=", _mask(part)) for part in parts]
    names = {part[: len(pair[0])].strip() for part, pair in zip(parts, sides, strict=True)}
    return len(parts) > 1 and all(len(pair) == 2 and pair[0].strip() for pair in sides) and len(names) == len(parts)


# ── comparing ─────────────────────────────────────────────────────────────────────────────────────


def match(one: Collection, other: Collection, same: Same) -> bool | None:
    """Whether two collections are equal, by ``same`` of their parts; None where it takes more than the parts to tell.

    Lists are equal if their parts can be paired off, so 2, 2, 3 is not 2, 3. Of a set only its members count.
    """
    kinds = {one.kind, other.kind}
    as_many = len(one.parts) == len(other.parts)
    if kinds == {"list"}:
        return as_many and _judge(one, other, same, _paired)
    if kinds == {"system"}:
        return (as_many and _judge(one, other, same, _paired)) or None  # other equations may say the same
    if kinds in ({"set"}, {"list", "set"}):
        return _judge(one, other, same, _covered)
    if len(kinds) == 1 or kinds in ({"system", "list"}, {"system", "()"}):  # x = 1, y = 2 and (1, 2)
        return as_many and _in_order(one, other, same)
    return None


def _in_order(one: Collection, other: Collection, same: Same) -> bool | None:
    verdict: bool | None = True
    for a, b in zip(one.parts, other.parts, strict=True):
        equal = same(a, b)
        if equal is False:
            return False
        verdict = verdict and equal
    return verdict


def _judge(one: Collection, other: Collection, same: Same, test: Callable[[Table], bool]) -> bool | None:
    """A test of which parts are equal, where some comparisons may be open: None if it depends on those."""
    verdicts = []
    for a in one.parts:
        verdicts.append([same(a, b) for b in other.parts])
        if not any(v is not False for v in verdicts[-1]):
            return False
    if test([[v is True for v in row] for row in verdicts]):
        return True
    return None if test([[v is not False for v in row] for row in verdicts]) else False


def _covered(table: Table) -> bool:
    return all(map(any, table)) and all(map(any, zip(*table, strict=True)))


def _paired(table: Table) -> bool:
    """Whether every row has a column of its own in which it is true: augmenting paths (Kuhn 1955)."""
    row_of: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, equal in enumerate(table[row]):
            if equal and column not in seen:
                seen.add(column)
                if column not in row_of or place(row_of[column], seen):
                    row_of[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(table)))
