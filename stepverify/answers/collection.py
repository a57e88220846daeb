r"""Split answers into parts: lists, sets, tuples, intervals, vectors, matrices, systems.

Standard library only. Parts are compared one by one. Most are plain numbers, so most collections are compared exactly
and quickly.

Rules of equality: a tuple, vector or interval is ordered, a set is not. A bare list ``2, 3`` equals another list or a
set in any order, and a tuple or vector in its order. A set does not equal a tuple. ``[2, 5]`` and ``(2, 5)`` differ, as
they may be intervals; with three parts the brackets do not matter. ``x = 1, y = 2`` is the tuple (1, 2).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from stepverify.answers.masking import mask, split
from stepverify.answers.spelling import DELIMITED, MAX_LENGTH, is_prose, normalize

MAX_PARTS = 16
"""Largest number of parts that a collection is split into, as all pairs of parts may be compared."""

Same = Callable[[str, str], bool | None]
Table = list[list[bool]]


@dataclass(frozen=True, slots=True)
class Collection:
    """Hold an answer of two or more parts.

    Attributes:
        kind: ``list`` (``1, 2``), ``set``, ``system`` (``x = 1, y = 2``: equations whose left sides differ),
            ``vector``, ``union`` (of intervals), the brackets of a tuple or interval (``(]``), or ``matrix 3``, a
            matrix with three columns.
    """

    kind: str
    parts: tuple[str, ...]


# ── taking apart ──────────────────────────────────────────────────────────────────────────────────

_WHOLE = re.compile(r"(\\\{|\\langle|[(\[{])\0+(\\\}|\\rangle|[)\]}])")  # of a masked text
_ENVIRONMENT = re.compile(
    r"[(\[]?\s*\\begin\{(?P<name>cases|[pb]?matrix|array)\}(?:\{[lcr|]*\})?(?P<rows>.*)\\end\{(?P=name)\}\s*[)\]]?",
    re.DOTALL,
)
_QUOTED_LIST = re.compile(r"\\text\{([^{}]*(?:,|\b(?:and|or)\b)[^{}]*)\}")
_JOIN = re.compile(r"(?:,\s*)?(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|;")
_THOUSANDS = re.compile(r"(?<![\d.])(?:0|[1-9]\d{0,2})(?:,\d{3})+(?!\d|,\d)")  # 0,111 may be a decimal
_CUP = re.compile(r"\\cup(?![A-Za-z])|(?<=[)\]])\s*U\s*(?=[(\[])")
_COMMA, _AMPERSAND, _BREAK = re.compile(r",|;"), re.compile("&"), re.compile(r"\\\\")
_TERM = re.compile(
    r"\s*(?P<sign>[-+]?)\s*(?P<factor>[^-+ijk]*?)\s*\\(?:text|hat|vec|widehat)\s*\{\s*\\?(?:text\s*\{\s*)?(?P<axis>[ijk])(?:math)?\s*\}?\s*\}"
)
_SINGLE = re.compile(r"(\\?)\{(?!.*(?:[,;|:]|\\(?:mid|choose|emptyset)))\s*(.+?)\s*\1\}", re.DOTALL)


@lru_cache(maxsize=4096)
def take_apart(answer: str) -> Collection | None:
    r"""Split an answer into its parts.

    None for a single part, or for more than 16.

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
    if DELIMITED.search(text):
        return None  # $1$ and $2$, or prose
    if environment := _ENVIRONMENT.fullmatch(text):
        return _of_rows(environment["rows"], cases=environment["name"] == "cases")
    whole = _WHOLE.fullmatch(mask(text))
    if whole and not re.search(r"\\[pm][mp](?![A-Za-z])", text):
        return _bracketed(whole[1], whole[2], text[whole.end(1) : whole.start(2)])
    if len(united := split(text, _CUP)) > 1:
        return _united(united)
    if vector := _of_unit_vectors(text):
        return vector
    text = _QUOTED_LIST.sub(r"\1", text)
    groups = split(text, _JOIN)
    if len(groups) > 1 and all(_is_system(_commas(group)) for group in groups):
        return _collection("list", groups)  # x = 1, y = 2 or x = 2, y = 1
    parts = [branch for group in groups for part in _commas(group) for branch in _branches(part)]
    return _collection("system" if _is_system(parts) else "list", parts)


def only_member(text: str) -> str | None:
    r"""Return the member of a set of one: ``\{2\}``.

    >>> only_member(r"\{2\}"), only_member(r"\{1, 2\}")
    ('2', None)
    """
    found = _SINGLE.fullmatch(text) if _WHOLE.fullmatch(mask(text)) else None
    return found[2] if found else None


def _bracketed(left: str, right: str, inner: str) -> Collection | None:
    kind = {"{": "set", r"\{": "set", r"\langle": "vector"}.get(left, left + right)
    if r"\{" in inner and kind != "set":
        return None
    parts = _commas(inner, thousands=", " in inner)
    if kind in ("[]", "set"):  # [[1, 2], [3, 4]]
        rows = [_WHOLE.fullmatch(mask(part)) for part in parts]
        if kind == "[]" and len(parts) > 1 and all(row and row[1] + row[2] in ("[]", "()") for row in rows):
            cells = [_commas(part[1:-1], thousands=", " in part) for part in parts]
            if len({len(row) for row in cells}) == 1 and parts[0].startswith("["):
                return _collection(f"matrix {len(cells[0])}", [cell for row in cells for cell in row])
    if kind == "set":
        parts = [branch for part in parts for branch in _branches(part)]
    return _collection(kind, parts)


def _united(parts: list[str]) -> Collection | None:
    r"""Read ``(1,2) \cup [3,4)``, or ``\{1\} \cup \{2\}``, which is a set."""
    inner = [_WHOLE.fullmatch(mask(part)) for part in parts]
    if not all(inner):
        return None
    if all(found and found[1].endswith("{") for found in inner):
        members = [part[found.end(1) : found.start(2)] for part, found in zip(parts, inner, strict=True) if found]
        return _collection("set", [member for text in members for member in _commas(text)])
    return _collection("union", parts)


def _of_unit_vectors(text: str) -> Collection | None:
    r"""Read ``2\mathbf{i} - 3\mathbf{j}`` as the vector (2, -3)."""
    parts: dict[str, str] = {}
    end = 0
    while end < len(text) and (found := _TERM.match(text, end)):
        if found["axis"] in parts:
            return None
        parts[found["axis"]] = f"{found['sign'].replace('+', '')}{found['factor'] or '1'}"
        end = found.end()
    if end < len(text) or len(parts) < 2:
        return None
    return _collection("vector", [parts.get(axis, "0") for axis in ("ijk" if "k" in parts else "ij")])


def _collection(kind: str, parts: list[str]) -> Collection | None:
    return (
        Collection(kind, tuple(parts))
        if 2 <= len(parts) <= MAX_PARTS and all(parts) and not any(map(is_prose, parts))
        else None
    )


def _of_rows(text: str, cases: bool) -> Collection | None:
    rows = [split(row, _AMPERSAND) for row in split(text, _BREAK)]
    rows = rows[:-1] if rows[-1] == [""] else rows  # a break after the last row
    cells = [cell for row in rows for cell in row]
    if len({len(row) for row in rows}) != 1:
        return None
    if cases:
        return _collection("system", cells) if _is_system(cells) else None
    return _collection("vector" if len(rows[0]) == 1 else f"matrix {len(rows[0])}", cells)


def _commas(text: str, thousands: bool = True) -> list[str]:
    """Split a text at its commas, but not at those of thousands."""
    masked = mask(text)
    if thousands:
        masked = _THOUSANDS.sub(lambda found: found[0].replace(",", "\0"), masked)
    return split(text, _COMMA, masked)


def _branches(part: str) -> list[str]:
    r"""List the two values of ``3 \pm \sqrt 2``.

    Several signs change together.
    """
    signs = re.findall(r"\\(?:pm|mp)(?![A-Za-z])", part)
    if not signs or signs.count(r"\pm") > 1 or signs.count(r"\mp") > 1:
        return [part]
    return [_signed(part, plus, minus) for plus, minus in (("+", "-"), ("-", "+"))]


def _signed(part: str, plus: str, minus: str) -> str:
    text = re.sub(r"\\pm(?![A-Za-z])\s*", plus, re.sub(r"\\mp(?![A-Za-z])\s*", minus, part))
    return re.sub(r"(^|[=(\[{,])(\s*)\+", r"\1\2", text).strip()


def _is_system(parts: list[str]) -> bool:
    sides = [re.split(r"(?<![<>!:\\])=", mask(part)) for part in parts]
    names = {part[: len(pair[0])].strip() for part, pair in zip(parts, sides, strict=True)}
    return len(parts) > 1 and all(len(pair) == 2 and pair[0].strip() for pair in sides) and len(names) == len(parts)


# ── comparing ─────────────────────────────────────────────────────────────────────────────────────


def match(one: Collection, other: Collection, same: Same) -> bool | None:
    """Compare two collections part by part; None if that is undecided.

    Lists are equal if their parts can be paired off, so 2, 2, 3 is not 2, 3. For a set only its members matter.
    """
    if one.kind > other.kind:
        one, other = other, one
    kinds, as_many = (_kind(one), _kind(other)), len(one.parts) == len(other.parts)
    if kinds in (("list", "list"), ("union", "union")):
        return as_many and _judge(one, other, same, _paired)
    if kinds == ("system", "system"):
        return (as_many and _judge(one, other, same, _paired)) or None  # other equations may be equivalent
    if kinds in (("set", "set"), ("list", "set")):
        return _judge(one, other, same, _covered)
    if kinds[1] == "system" and kinds[0] in ("list", "ordered", "()"):  # x = 1, y = 2 and (1, 2)
        return as_many and _in_order(one, _by_name(other), same)
    if kinds[0] == kinds[1] or set(kinds) <= {"()", "ordered", "list"} or (set(kinds) <= {"[]", "ordered"}):
        return as_many and _in_order(one, other, same)
    return None if "union" in kinds and "()" not in kinds else False


def _kind(found: Collection) -> str:
    """Return the kind; vectors and bracketed triples or more are "ordered"."""
    if found.kind == "vector" or (found.kind in ("()", "[]") and len(found.parts) > 2):
        return "ordered"
    return found.kind


def _by_name(system: Collection) -> Collection:
    """Sort a system ``y = 2, x = 1`` by its variables.

    Only if they are neighbours in the alphabet.
    """
    names = [part.partition("=")[0].strip() for part in system.parts]
    letters = sorted(names)
    neighbours = all(len(name) == 1 and name.isalpha() for name in names) and all(
        ord(b) - ord(a) == 1 for a, b in pairwise(letters)
    )
    if not neighbours:
        return system
    return Collection("system", tuple(part for _, part in sorted(zip(names, system.parts, strict=True))))


def _in_order(one: Collection, other: Collection, same: Same) -> bool | None:
    verdict: bool | None = True
    for a, b in zip(one.parts, other.parts, strict=True):
        equal = same(a, b)
        if equal is False:
            return False
        verdict = verdict and equal
    return verdict


def _judge(one: Collection, other: Collection, same: Same, test: Callable[[Table], bool]) -> bool | None:
    """Test which parts are equal; None if that depends on undecided comparisons."""
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
    """Check for a perfect matching of rows and true columns (Kuhn 1955).

    It is found by augmenting paths.
    """
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
