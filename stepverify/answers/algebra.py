"""Compare answers by computer algebra: expressions, equations, inequalities, sets, matrices.

Comparison is symmetric. Answers are parsed by Math-Verify's grammar. Its comparison is not used, as it accepts
rounding, distinguishes sets from tuples by the order of their members, and takes the right side of any equation for a
value.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from stepverify.answers.exact import Unknown, equal_numbers, exactly, rational

_POINTS = (
    (Fraction(5, 4), Fraction(5, 16)),
    (Fraction(39, 64), Fraction(7, 16)),
    (Fraction(-55, 32), Fraction(13, 16)),
)
"""Start and step of the variables' values, by rank. Two points are positive, the third has both signs."""


def equal_objects(one: Any, other: Any) -> bool:
    """Compare two SymPy objects, or texts that could not be parsed.

    ``x = 2`` equals ``2``; other equations equal equations only, up to a factor. An inequality equals the set of its
    solutions. Tuples are ordered, sets are not.
    """
    from sympy import Basic, Eq, Expr, MatrixBase, MatrixExpr, Set, Tuple
    from sympy.core.relational import Relational
    from sympy.logic.boolalg import BooleanFunction

    if not all(isinstance(item, Basic | MatrixBase) for item in (one, other)):
        return bool(one == other)
    one, other = (item.doit() if isinstance(item, MatrixExpr) else item for item in (one, other))
    if not (isinstance(one, Eq) and isinstance(other, Eq)):
        one, other = _value_of(one), _value_of(other)

    def both(*kinds: type) -> bool:
        return isinstance(one, kinds) and isinstance(other, kinds)

    if both(Expr):
        return same_value(one, other)
    if both(Eq):
        return _proportional(one.lhs - one.rhs, other.lhs - other.rhs)
    if both(MatrixBase):
        return bool(one.shape == other.shape) and all(map(equal_objects, one, other))
    if both(Tuple):
        return len(one) == len(other) and all(map(equal_objects, one, other))
    if both(Relational, BooleanFunction) and _same_inequality(one, other):
        return True
    return both(Set, Relational, BooleanFunction) and _same_set(_solutions(one), _solutions(other))


def _value_of(item: Any) -> Any:
    """Return the value of ``x = 2`` or ``2 = 2``.

    Anything else is returned unchanged.
    """
    from sympy import Eq

    return item.rhs if isinstance(item, Eq) and (item.lhs.is_Symbol or not item.lhs.free_symbols) else item


# ── expressions ───────────────────────────────────────────────────────────────────────────────────


def same_value(one: Any, other: Any) -> bool:
    """Compare two expressions: constants exactly, others at three points.

    Two points have to agree; an expression may be undefined or not real at a point. Proving identities by computer
    algebra may take seconds where this takes milliseconds, and misses some: that x^(3/2) is sqrt(x^3).
    """
    one, other = _with_i(one), _with_i(other)
    names = sorted({symbol.name for expression in (one, other) for symbol in expression.free_symbols})
    agreed = 0
    points = _POINTS if names else _POINTS[:1]
    for start, step in points:
        try:
            equal = _equal_at(one, other, {name: start + step * rank for rank, name in enumerate(names)})
        except Exception:  # Unknown, poles, functions without a value, any error in SymPy
            continue
        if not equal:
            return False
        agreed += 1
    return agreed >= min(2, len(points)) or (not agreed and _same_form(one, other))


def _with_i(expression: Any) -> Any:
    """Make ``i`` the imaginary unit, and decimals within a formula exact.

    Math-Verify takes i for a variable in some formulas.
    """
    from sympy import I

    expression = expression if expression.is_Float else exactly(expression)
    return expression.xreplace({symbol: I for symbol in expression.free_symbols if symbol.name == "i"})


def _equal_at(one: Any, other: Any, at: dict[str, Fraction]) -> bool:
    from sympy import nan, oo, zoo

    a, b = rational(one, at), rational(other, at)
    if a is not None and b is not None:
        return a == b
    x, y = (
        _at(expression, {symbol: at[symbol.name] for symbol in expression.free_symbols}) for expression in (one, other)
    )
    if any(value.has(zoo, nan, oo) for value in (x, y)):
        raise Unknown
    if x == y:
        return True
    if any(at) and not (x.is_real and y.is_real) and not (one.has(_i()) or other.has(_i())):
        raise Unknown  # roots of negative numbers have several branches
    return equal_numbers(x, y)


def _i() -> Any:
    from sympy import I

    return I


def _at(expression: Any, values: dict[Any, Fraction]) -> Any:
    from sympy import Rational

    return expression.xreplace({s: Rational(v.numerator, v.denominator) for s, v in values.items()}).doit()


def _same_form(one: Any, other: Any) -> bool:
    """Compare expressions that have no values, with undefined functions."""
    from sympy import simplify
    from sympy.core.function import AppliedUndef

    if not (one.has(AppliedUndef) and other.has(AppliedUndef)):
        return False
    try:
        return bool(one == other or simplify(one - other) == 0)
    except Exception:
        return False


# ── equations and inequalities ────────────────────────────────────────────────────────────────────


def _proportional(one: Any, other: Any, *, positive: bool = False) -> bool:
    """Check whether one expression is a constant times the other.

    With ``positive`` the constant must be positive.
    """
    symbols = one.free_symbols
    if symbols != other.free_symbols:
        return False
    if same_value(one, other) or (not positive and same_value(one, -other)):
        return True
    for start in (Fraction(7, 3), Fraction(-11, 5)):
        values = {symbol: start + rank * Fraction(9, 7) for rank, symbol in enumerate(sorted(symbols, key=str))}
        a, b = _at(one, values), _at(other, values)
        if a.is_zero is False and b.is_zero is False and a.is_finite and b.is_finite:
            return (not positive or bool(a / b > 0)) and same_value(one * b, other * a)
    return False


def _same_inequality(one: Any, other: Any) -> bool:
    """Check whether inequalities are equal up to a constant factor or direction.

    Chains match in any order.
    """
    from sympy.core.relational import Relational

    if not (isinstance(one, Relational) and isinstance(other, Relational)):
        return type(one) is type(other) and _paired(one.args, other.args, _same_inequality)
    (a, operator), (b, other_operator) = _positive(one), _positive(other)
    return operator == other_operator and _proportional(a, b, positive=operator != "!=")


def _positive(relation: Any) -> tuple[Any, str]:
    """Convert ``lhs < rhs`` to ``rhs - lhs`` and ``>``."""
    if relation.rel_op in ("<", "<="):
        return relation.rhs - relation.lhs, relation.rel_op.replace("<", ">")
    return relation.lhs - relation.rhs, relation.rel_op


# ── sets ──────────────────────────────────────────────────────────────────────────────────────────


def _solutions(item: Any) -> Any:
    from sympy import Set

    return item if isinstance(item, Set) else item.as_set()


def _same_set(one: Any, other: Any) -> bool:
    from sympy import FiniteSet, Interval, Union

    if one == other:
        return True
    if isinstance(one, Interval) and isinstance(other, Interval):
        as_open = (one.left_open, one.right_open) == (other.left_open, other.right_open)
        return as_open and _same_end(one.start, other.start) and _same_end(one.end, other.end)
    for kind in (FiniteSet, Union):
        if isinstance(one, kind) and isinstance(other, kind):
            return _paired(one.args, other.args, equal_objects)
    return bool(one.symmetric_difference(other).is_empty)


def _same_end(one: Any, other: Any) -> bool:
    return bool(one == other) if one.is_infinite or other.is_infinite else same_value(one, other)


def _paired(one: Iterable[Any], other: Iterable[Any], same: Any) -> bool:
    """Check whether each member has an equal one on the other side."""
    a, b = list(one), list(other)
    return all(any(same(x, y) for y in b) for x in a) and all(any(same(x, y) for x in a) for y in b)
