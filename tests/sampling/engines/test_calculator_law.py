"""The law of solutions by the calculator, in exact fractions over all executions."""

from collections import defaultdict
from fractions import Fraction
from functools import cache

import pytest

from sampling.engines import Request, SamplingOptions, calculator
from sampling.engines.calculator import CalculatorEngine
from tests.helpers.chain import (
    ID,
    Choosing,
    stopping_at_every_equals_sign,
    weights,
)


def law(execute):
    """Exact probabilities of the results of ``execute(choose)``: all ways to choose are gone through."""
    found, open_tapes = defaultdict(Fraction), [((), Fraction(1))]
    while open_tapes:
        tape, probability = open_tapes.pop()
        left = iter(tape)

        def choose(ids, _position, left=left, tape=tape, probability=probability):
            if (token := next(left, None)) is not None:
                return token
            row = weights(ids[-1])
            open_tapes.extend(((*tape, t), probability * Fraction(w, sum(row))) for t, w in enumerate(row) if w)
            raise StopAsyncIteration

        try:
            result = execute(choose)
        except StopAsyncIteration:
            continue
        found[result] += probability
    return found


def by_calculator(choose, options):
    c = at_once(CalculatorEngine(Choosing(choose)), options)
    return tuple(c.token_ids), c.text, c.finish


@cache
def law_by_calculator(max_tokens, *stop):
    options = SamplingOptions(temperature=1, max_tokens=max_tokens, stop=[*stop])
    return law(lambda choose: by_calculator(choose, options))


def at_once(engine, options):
    """One completion, by an engine that never waits."""
    try:
        engine.complete(Request("r", [ID["\n"]], 1, 0), options).send(None)
    except StopIteration as ended:
        return ended.value[0]
    raise AssertionError("it waits")


@pytest.fixture(autouse=True)
def without_event_loop(monkeypatch):
    """The law goes through thousands of completions, and an event loop would take most of the time."""

    async def one_after_another(works):
        return [await work for work in works]

    monkeypatch.setattr(calculator, "together", one_after_another)


@pytest.mark.parametrize(("max_tokens", "stop"), [(9, []), (9, ["2>>2", "\n<"]), (4, [])])
def test_the_law_is_that_of_stopping_at_every_equals_sign(max_tokens, stop):
    """Every solution has the same probability, in exact fractions, over all executions of both."""
    options = SamplingOptions(temperature=1, max_tokens=max_tokens, stop=stop)
    start = [ID["\n"]]
    expected = law(lambda choose: stopping_at_every_equals_sign(start, options, options.max_tokens, choose))
    assert law_by_calculator(max_tokens, *stop) == expected
    assert sum(expected.values()) == 1
    assert len(expected) > (5 if options.max_tokens == 4 else 50)


def test_the_law_differs_where_the_calculator_is_missing():
    """The comparison above can fail: the chain draws incorrect values, and the same text in other tokens."""
    options = SamplingOptions(temperature=1, max_tokens=9)
    plain = law(lambda choose: at_once(Choosing(choose), options).text)
    forced = {text for _, text, _ in law_by_calculator(9)}
    assert set(plain) - forced
    assert {"<<1+2=3>>", "<<1+1=2>>"} <= {text[:9] for text in forced}
    assert not any("=13" in text for text in forced)
