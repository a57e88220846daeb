r"""Mathematical equality of two answers: plain numbers exactly, everything else with Math-Verify."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

from stepverify.answers.plain import normalize, number, settle

_FORMULA = re.compile(r"\$|\\boxed|\\\(|\\\[")
_TRAILING_TEXT = re.compile(r"(?<=\S)\s*\\text\{(?!\s*(?:and|or)\b)[^{}\d]*\}\s*(?:\^\s*(?:\d|\{\d\}))?$")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")


def equivalent(gold: str, predicted: str | None) -> bool:
    r"""Whether two answers are mathematically equal. Symmetric. Works in any thread.

    Two plain numbers are compared exactly, and at once. Everything else is parsed and compared by
    Math-Verify (https://github.com/huggingface/Math-Verify), without a time limit: ``9**9**9**9``
    never returns. Answers that a model wrote belong to :class:`stepverify.answers.Grader`.

    Returns:
        False where either answer is missing, empty or, if not a copy of the other, longer than
        2,000 characters.

    >>> equivalent(r"\frac{1}{2}", "0.5"), equivalent("0.333", "1/3"), equivalent("x^2-1", "(x-1)(x+1)")
    (True, False, True)
    """
    settled = settle(gold, predicted)
    if settled is not None:
        return settled
    assert predicted is not None
    return _equal(_parse(gold), _parse(predicted))


def _equal(one: list[Any], other: list[Any]) -> bool:
    """Math-Verify's comparison, which depends on the order of its arguments, made symmetric.

    Its first argument may hold more than the second asks for: of ``x = 5`` and ``5``, or ``0 < x < 1``
    and ``(0, 1)``, the relation goes first, else ``a + 3z = 0`` would equal 0. So does a tuple before a
    set, else (3, 1) would equal {1, 3}. Two of a kind are compared in both orders.
    """
    from math_verify import verify

    def in_order(gold: list[Any], predicted: list[Any]) -> bool:
        # Its own time limit is an alarm signal, which works in the main thread only: hence none.
        return bool(verify(gold, predicted, timeout_seconds=None))

    at_once = _compare_values(one, other)
    if at_once is not None:
        return at_once
    first, second = _structure(one), _structure(other)
    if first != second:
        return in_order(one, other) if first > second else in_order(other, one)
    return in_order(one, other) or in_order(other, one)


def _compare_values(one: list[Any], other: list[Any]) -> bool | None:
    """What two expressions are worth once evaluated: True if the same, False if they differ at a point.

    The point has all variables positive. It settles most wrong answers in a millisecond that
    ``simplify`` would spend a second on. Only a difference beyond all rounding counts (10^-3, relative),
    for Math-Verify forgives some. None where this is not enough, or an answer is no expression.
    """
    from sympy import Expr, Float, nan, zoo

    if not (one and other and isinstance(one[0], Expr) and isinstance(other[0], Expr)):
        return None
    if any("%" in str(item) for parsed in (one, other) for item in parsed if isinstance(item, str)):
        return None  # two readings
    names = sorted({symbol.name for parsed in (one, other) for symbol in parsed[0].free_symbols})
    point = {name: Float(1.25 + 0.3125 * rank) for rank, name in enumerate(names)}
    try:
        value = one[0].doit()  # Math-Verify parses x + 0 as such, and tells it from x
        if value == other[0].doit() and not value.has(zoo, nan):  # 12:00 is no ratio, nor is 1:00
            return True
        a, b = (complex(p[0].evalf(15, subs={s: point[s.name] for s in p[0].free_symbols})) for p in (one, other))
    except Exception:  # unknown functions, poles, whatever SymPy meets: no number there, so no verdict
        return None
    return False if abs(a - b) > 1e-3 * max(abs(a), abs(b), 1e-9) else None


def _structure(parsed: list[Any]) -> int:
    from sympy import Tuple
    from sympy.core.relational import Relational
    from sympy.logic.boolalg import BooleanFunction

    if parsed and isinstance(parsed[0], Relational | BooleanFunction):
        return 2 if parsed[0].free_symbols else 0  # 28/4 = 7 is a number with its derivation
    return 1 if parsed and isinstance(parsed[0], Tuple) else 0


@lru_cache(maxsize=1024)
def _parse(answer: str) -> list[Any]:
    """Math-Verify's reading of an answer: a SymPy object where it finds one, and the text it is from."""
    from math_verify import parse
    from sympy import Rational

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that no alarm is set: Grader sets the limit
    text = normalize(answer)
    plain = number(answer)
    if plain and not plain.percent and "." not in text:  # decimals stay decimals, which forgive rounding
        return [Rational(plain.value.numerator, plain.value.denominator), text]
    if _FORMULA.search(text):  # formulas within prose: Math-Verify picks the one that answers
        return parse(answer, parsing_timeout=None)
    text = _TRAILING_TEXT.sub("", text)  # a unit
    if _TRIGONOMETRIC.search(text):
        text = _DEGREES.sub(r"\\frac{\1\\pi}{180}", text)
    return parse(f"${text}$", parsing_timeout=None)
