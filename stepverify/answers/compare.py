r"""Compare two answers mathematically: exact rules first, then computer algebra."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from stepverify.answers.collection import match, only_member, take_apart
from stepverify.answers.extract import extract_answer
from stepverify.answers.labels import choice, compact, same_label
from stepverify.answers.number import number
from stepverify.answers.regions import region
from stepverify.answers.spelling import DELIMITED, MAX_LENGTH, is_prose, normalize
from stepverify.answers.statement import Named, agree, condition, is_equation, named

Same = Callable[[str, str], bool | None]
_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne)(?![A-Za-z])")


def settle(gold: str | None, predicted: str | None) -> bool | None:
    r"""Compare two answers without computer algebra; None if that is needed.

    Comparison is symmetric, and exact for two plain numbers (0.333 is not 1/3) and collections of them. Nothing equals
    a missing or empty answer.

    Exact for two plain numbers (0.333 is not 1/3) and what is made of them. Nothing equals a missing or empty answer.

    >>> settle("1,000", "1000.0"), settle(r"(0.5, 2)", r"(\frac12, 3)"), settle("2x", "x + x")
    (True, False, None)
    """
    return _compare(gold, predicted, settle, lambda one, other: None)


def equivalent(gold: str | None, predicted: str | None) -> bool:
    r"""Compare two answers mathematically.

    Comparison is symmetric and works in any thread. Plain numbers, words and collections of these are compared exactly
    and quickly. Everything else is parsed by Math-Verify (https://github.com/huggingface/Math-Verify) and compared by
    :mod:`stepverify.answers.algebra`, without a time limit: a sum of 10^12 terms takes forever. Compare a model's
    answers with :class:`stepverify.answers.Grader`.

    Returns:
        False if either answer is missing or empty, or longer than 2,000 characters without being a copy of the other.

    >>> equivalent(r"\frac{1}{2}", "0.5"), equivalent("0.333", "1/3"), equivalent("x^2-1", "(x-1)(x+1)")
    (True, False, True)
    """
    return bool(_compare(gold, predicted, equivalent, _by_algebra))


def answer_key(answer: str | None) -> str | None:
    """Return a canonical key of a plain number; None for anything else.

    Equal keys are equal answers.

    >>> answer_key("1,000.50"), answer_key("20%"), answer_key("x")
    ('2001/2', '20%', None)
    """
    found = number(answer) if answer else None
    return None if found is None else found.key


def stated(answer: str) -> str:
    """Return the answer, or the one that a solution or sentence states."""
    if len(answer) <= MAX_LENGTH and "#" not in answer and not is_prose(condition(" ".join(answer.split()))[0]):
        return answer.strip()
    return (extract_answer(answer) or answer).strip()


def _compare(gold: str | None, predicted: str | None, same: Same, by_algebra: Same) -> bool | None:
    one, other = stated(gold or ""), stated(predicted or "")
    if not one or not other:
        return False
    if one == other:
        return True
    if max(len(one), len(other)) > MAX_LENGTH:
        return False
    a, b = number(one), number(other)
    if a and b:
        return a.equals(b)
    left, right = normalize(one), normalize(other)
    if left and compact(left) == compact(right):
        return True
    if (verdict := same_label(left, right)) is not None:
        return verdict
    if (rewritten := _rewrite(left, right)) is not None:
        return rewritten if isinstance(rewritten, bool) else same(*rewritten)
    parts, others = take_apart(left), take_apart(right)
    single = not (parts if is_equation(left) else others)
    formulas = not any(_is_sentence(text) or _RELATION.search(text) for text in (left, right))
    if single and formulas and is_equation(left) != is_equation(right):
        return False  # x + y = 5 is not a number
    if parts and others and (matched := match(parts, others, same)) is not None:
        return matched
    if (parts and b) or (others and a):
        several = parts or others
        return False if several and all(map(number, several.parts)) else by_algebra(one, other)  # 1, 2 is not 1
    return by_algebra(one, other)


def _rewrite(left: str, right: str) -> tuple[str, str] | bool | None:
    """Rewrite two answers as simpler ones that are equal if these are.

    Returns the verdict if that decides it, and None if nothing is simpler.
    """
    (one, when), (other, then) = condition(left), condition(right)
    if any(map(_is_sentence, (one, other))):
        return None
    a, b = choice(left), choice(right)
    if a and b:
        return a.letter == b.letter
    if (a and a.says) or (b and b.says):
        return (a.says if a else left), (b.says if b else right)
    if when or then:
        return (one, other) if not (when and then) or compact(when) == compact(then) else False
    if (only := only_member(left)) is not None or only_member(right) is not None:
        alone = only_member(right)
        return (left if only is None else only), (right if alone is None else alone)
    first, second = named(left), named(right)
    if first and second:
        if values := agree(first, second):
            return values
        return None if any(re.search(r"(?<!\\)[a-z]", n.value) for n in (first, second)) else False
    if first and _is_value(right, of=first):
        return first.value, right
    if second and _is_value(left, of=second):
        return left, second.value
    return _as_intervals(left, right)


def _is_sentence(text: str) -> bool:
    return is_prose(text) or bool(DELIMITED.search(text))


def _is_value(text: str, of: Named) -> bool:
    """Check whether a text may be a value.

    An equation is not, but a system may be a point, an inequality a set.
    """
    if is_equation(text):
        parts = take_apart(text)
        return parts is not None and parts.kind == "system" and of.name.startswith("(")
    return not _RELATION.search(text) or of.value[-1:] in (")", "]", "}")


def _as_intervals(left: str, right: str) -> tuple[str, str] | bool | None:
    x, y = region(left), region(right)
    if not ((x and x.text != left) or (y and y.text != right)):
        return None
    if x and y and x.variable and y.variable and x.variable != y.variable:
        return False
    if _RELATION.search(left) and _RELATION.search(right) and not (x and y):
        return None  # 2x > 4 is left to algebra
    return (x.text if x else left), (y.text if y else right)


def _by_algebra(one: str, other: str) -> bool:
    from stepverify.answers.algebra import equal_objects
    from stepverify.answers.formula import read

    return any(
        _equal(x, y, equal_objects) for x in read(one) for y in read(other) if isinstance(x, str) == isinstance(y, str)
    )


def _equal(one: Any, other: Any, equal_objects: Callable[[Any, Any], bool]) -> bool:
    try:
        return equal_objects(one, other)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # an error in SymPy never makes two answers equal
        return False
