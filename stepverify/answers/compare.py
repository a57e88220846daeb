r"""Mathematical equality of two answers: what is plain exactly, everything else with Math-Verify."""

from __future__ import annotations

from typing import Any

from stepverify.answers.collection import match, take_apart
from stepverify.answers.formula import read
from stepverify.answers.plain import settle, stated


def equivalent(gold: str, predicted: str | None) -> bool:
    r"""Whether two answers are mathematically equal. Symmetric. Works in any thread.

    Plain numbers, words and collections of these are compared exactly, and at once. Everything else is parsed and
    compared by Math-Verify (https://github.com/huggingface/Math-Verify), without a time limit: ``9**9**9**9``
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
    gold, predicted = stated(gold), stated(predicted or "")
    one, other = take_apart(gold), take_apart(predicted)
    if one and other and (matched := match(one, other, equivalent)) is not None:
        return matched
    return _equal(read(gold), read(predicted))


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


def _structure(parsed: list[Any]) -> int:
    from sympy import Tuple
    from sympy.core.relational import Relational
    from sympy.logic.boolalg import BooleanFunction

    if parsed and isinstance(parsed[0], Relational | BooleanFunction):
        return 2 if parsed[0].free_symbols else 0  # 28/4 = 7 is a number with its derivation
    return 1 if parsed and isinstance(parsed[0], Tuple) else 0


# ── values ────────────────────────────────────────────────────────────────────────────────────────

_POINTS = ((1.25, 0.3125), (0.609375, 0.4375), (-1.71875, 0.8125))
"""Values of the variables by rank: start and step, all exact. Two points are positive, the third has either sign."""


def _compare_values(one: list[Any], other: list[Any]) -> bool | None:
    """What two expressions are worth at three points: True if they agree to 30 digits, False if they clearly differ.

    It takes milliseconds where ``simplify`` may take seconds, and knows x^(3/2) as sqrt(x^3): a point where neither
    is real may differ, but in expressions with i. None where this is not enough: an answer is no expression, has no
    value there, agrees at one point alone, or differs so little that it may be rounding, which Math-Verify forgives.
    """
    from sympy import Expr, Float, I, Rational, nan, zoo

    if not (one and other and isinstance(one[0], Expr) and isinstance(other[0], Expr)):
        return None
    if any("%" in str(item) for parsed in (one, other) for item in parsed if isinstance(item, str)):
        return None  # two readings
    names = sorted({symbol.name for parsed in (one, other) for symbol in parsed[0].free_symbols} - {"i"})
    try:
        # Math-Verify parses x + 0 as such, and tells it from x; and i may be a variable to it.
        a, b = (
            p[0].doit().xreplace({s: I for s in p[0].free_symbols if s.name == "i"})
            .xreplace({f: Rational(str(f)) for f in p[0].atoms(Float)}) for p in (one, other)
        )  # fmt: skip
        if a == b and not a.has(zoo, nan):  # 12:00 is no ratio, nor is 1:00
            return True
        points, num_equal = _POINTS if names else _POINTS[:1], 0
        for start, step in points:
            point = {name: Rational(start + step * rank) for rank, name in enumerate(names)}
            x, y = (_value(expression, point) for expression in (a, b))
            gap, size = abs(x - y), max(abs(x), abs(y))
            if gap <= 1e-30 * size or size <= 1e-100:
                num_equal += 1
            elif not names or a.has(I) or b.has(I) or any(abs(z.imag) <= 1e-30 * abs(z) for z in (x, y)):
                return False if gap > 1e-3 * size else None
        return True if num_equal >= min(2, len(points)) else None
    except Exception:  # unknown functions, poles, whatever SymPy meets: no number there, so no verdict
        return None


def _value(expression: Any, point: dict[str, Any]) -> Any:
    """To 40 digits, as a complex number of mpmath."""
    from mpmath import mp
    from sympy import Float

    value = expression.evalf(40, subs={symbol: point[symbol.name] for symbol in expression.free_symbols})
    with mp.workdps(40):
        return mp.mpc(*(Float(part, 40) for part in value.as_real_imag()))
