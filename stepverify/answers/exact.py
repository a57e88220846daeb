r"""Compare constants exactly if rational, else to a precision that proves equality.

Answers often differ by less than any fixed tolerance (``1 - \frac{1}{2^{100}}``), so there is none. Rational values are
compared as fractions. Others are computed to as many digits as are needed to distinguish them: different expressions in
radicals differ by more than a bound of their size (Burnikel, Fleischer, Mehlhorn and Schirra 2000, A strong and easily
computable separation bound for arithmetic expressions involving radicals), so two that agree to that precision are
equal. For other functions (logarithms, sines, powers of e) no such bound is known; they are compared to the bound that
their constants would give, plus 50 digits.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

MAX_BITS = 400_000
"""Largest size in bits of exact numbers; larger ones never compare equal."""
MAX_DIGITS = 20_000
"""Most digits to which irrational constants are compared; constants that need more never compare equal."""


class Unknown(Exception):
    """Signal an expression without a computable value, or too large a one."""


def rational(expression: Any, at: dict[str, Fraction]) -> Fraction | None:
    """Evaluate a SymPy expression exactly; None unless made of rational operations.

    Args:
        expression: unevaluated as parsed.
        at: values of its symbols by name.

    Raises:
        Unknown: division by zero, or a number of more than 400,000 bits.
    """
    if expression.is_Rational:
        return Fraction(int(expression.p), int(expression.q))
    if expression.is_Symbol:
        return at.get(expression.name)
    if expression.is_Float:
        return Fraction(str(expression))
    name = type(expression).__name__
    if name not in _OPERATIONS or not expression.args:
        return None
    values = []
    for argument in expression.args:
        value = rational(argument, at)
        if value is None:
            return None
        values.append(value)
    try:
        result = _OPERATIONS[name](values)
    except (ZeroDivisionError, OverflowError):
        raise Unknown from None
    if result is not None and _bits(result) > MAX_BITS:
        raise Unknown
    return result


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _product(values: list[Fraction]) -> Fraction:
    if sum(map(_bits, values)) > 2 * MAX_BITS:
        raise Unknown
    return math.prod(values, start=Fraction(1))


def _power(values: list[Fraction]) -> Fraction | None:
    base, exponent = values
    if exponent.denominator != 1:
        return _root(base, exponent)
    if abs(exponent) * max(1, _bits(base) - 2) > MAX_BITS and base not in (0, 1, -1):
        raise Unknown
    return base ** int(exponent) if abs(exponent) <= MAX_BITS else base ** int(exponent % 2)


def _root(base: Fraction, exponent: Fraction) -> Fraction | None:
    """Compute ``8^(2/3)`` if it is rational; else None."""
    index = exponent.denominator
    if base < 0 or index > 64 or abs(exponent.numerator) * _bits(base) > MAX_BITS:
        return None
    from sympy import integer_nthroot

    (above, exact), (below, also) = integer_nthroot(base.numerator, index), integer_nthroot(base.denominator, index)
    return Fraction(int(above), int(below)) ** exponent.numerator if exact and also else None


def _factorial(values: list[Fraction]) -> Fraction | None:
    (n,) = values
    if n.denominator != 1 or n < 0:
        return None
    if n > 20_000:
        raise Unknown
    return Fraction(math.factorial(int(n)))


def _binomial(values: list[Fraction]) -> Fraction | None:
    n, k = values
    if n.denominator != 1 or k.denominator != 1 or not 0 <= k <= n:
        return None
    if n > 20_000:
        raise Unknown
    return Fraction(math.comb(int(n), int(k)))


_OPERATIONS: dict[str, Any] = {
    "Add": lambda values: sum(values, Fraction(0)), "Mul": _product, "Pow": _power,
    "factorial": _factorial, "binomial": _binomial,
    "Abs": lambda values: abs(values[0]), "floor": lambda values: Fraction(math.floor(values[0])),
    "ceiling": lambda values: Fraction(math.ceil(values[0])), "UnevaluatedExpr": lambda values: values[0],
    "Max": max, "Min": min,
}  # fmt: skip


def equal_numbers(one: Any, other: Any) -> bool:
    """Compare two SymPy constants that are not both rational.

    Raises:
        Unknown: one of them has no value, or is too large.
    """
    shown = max(map(_shown, (one, other)))
    one, other = exactly(one), exactly(other)
    gap, size = _gap(one, other, 30)
    if shown and gap <= shown:
        return True
    if gap > size * _ten(-25):
        return False
    above, below, degree = _bound(one - other)
    bits = (degree - 1) * above + below
    digits = int(bits * math.log10(2)) + _magnitude(size) + 50
    if digits > MAX_DIGITS:
        raise Unknown
    gap, size = _gap(one, other, digits)
    return bool(gap <= size * _ten(10 - digits))


def _gap(one: Any, other: Any, digits: int) -> tuple[Any, Any]:
    """Compute the distance of two constants, and their larger size.

    The size is at least 1.
    """
    from mpmath import mp

    with mp.workdps(digits):
        x, y = _number(one, digits), _number(other, digits)
        return abs(x - y), max(abs(x), abs(y), mp.mpf(1))


def _magnitude(number: Any) -> int:
    from mpmath import log10

    return int(log10(number))


def _ten(power: int) -> Any:
    from mpmath import mpf

    return mpf(10) ** power


def _number(expression: Any, digits: int) -> Any:
    from mpmath import mp
    from sympy import Float

    value = expression.evalf(digits)
    try:
        number = mp.mpc(*(Float(part, digits) for part in value.as_real_imag()))
    except (TypeError, ValueError, AttributeError):
        raise Unknown from None
    if not mp.isfinite(number):
        raise Unknown
    return number


def _shown(decimal: Any) -> Any:
    """Bound the rounding of a decimal printed from a float.

    0 for shorter decimals.

    Such a decimal has at least 15 digits. Rounding to fewer digits answers another question: 1.4142 is not the square
    root of 2.
    """
    if not decimal.is_Float:
        return 0
    text = str(decimal).lstrip("-").lower()
    mantissa, _, exponent = text.partition("e")
    if len(mantissa.replace(".", "").strip("0")) < 15:
        return 0
    return _ten(int(exponent or 0) - len(mantissa.partition(".")[2])) * 2  # twice, for errors of double precision


def _bound(expression: Any) -> tuple[float, float, int]:
    """Compute binary logarithms of the bounds u and l, and the degree.

    Source: Burnikel et al., section 2.
    """
    roots: dict[Any, int] = {}
    above, below = _bounds(expression, roots)
    degree = math.prod(roots.values())
    if degree > 10**6:
        raise Unknown
    return max(above, 1.0), max(below, 1.0), degree


def _bounds(expression: Any, roots: dict[Any, int]) -> tuple[float, float]:
    if expression.is_Rational:
        return math.log2(max(abs(int(expression.p)), 1)), math.log2(int(expression.q))
    parts = [_bounds(argument, roots) for argument in expression.args]
    name = type(expression).__name__
    if name == "Add":
        below = sum(low for _, low in parts)
        return max(high + below - low for high, low in parts) + math.log2(len(parts)), below
    if name == "Pow" and expression.exp.is_Rational:
        (above, below), n, k = parts[0], abs(int(expression.exp.p)), int(expression.exp.q)
        if expression.exp.p < 0:
            above, below = below, above
        above, below = n * above, n * below
        if k > 1:
            roots[expression] = k
            return ((above + (k - 1) * below) / k, below) if above >= below else (above, ((k - 1) * above + below) / k)
        return above, below
    high, low = sum(high for high, _ in parts), sum(low for _, low in parts)
    if name == "Mul":
        return high, low
    size = high + low + 2 + abs(_log2(expression))
    return size, size


def _log2(expression: Any) -> float:
    """Compute the binary logarithm of a value's size."""
    from sympy import log

    try:
        return float(log(abs(expression)).evalf(15)) / math.log(2)
    except (TypeError, ValueError, OverflowError):
        return 0.0


def exactly(expression: Any) -> Any:
    """Replace the decimals of an expression by fractions."""
    from sympy import Float, Rational

    return expression.xreplace({decimal: Rational(str(decimal)) for decimal in expression.atoms(Float)})
