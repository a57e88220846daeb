"""GSM8K's calculator (Cobbe et al. 2021, appendix on calculator annotations) over any engine.

A model that was taught ``48/2 = <<48/2=24>>24`` shall not have to know that it is 24: after the first ``=`` of
an annotation the calculator's value and ``>>`` stand, whatever the model would have sampled there.

Stopping at every ``=`` would read every prompt again for every annotation. Instead whole solutions are sampled; the
first annotation that does not go on as the calculator has it is cut there, the calculator's tokens are put in, and
that solution alone goes on, beside all other requests, until none is left.

**The distribution is that of stopping at every ``=``, token for token, for every model and tokenizer.** Where
the calculator acts, and the tokens it writes, depend on the tokens before it alone. Did the model draw these very
tokens, then what follows was sampled after them, as it would have been after writing them; did it not, what follows
is dropped and sampled anew. Whether it is dropped depends only on the tokens in the calculator's place; the tokens
after are sampled with numbers of their own (:class:`~sampling.engines.Request`). With ``TransformersEngine``
a number belongs to its seed and position, so both ways give the same solution, not just the same distribution.

At the seam, exactly: the calculator acts at the first token with which the text reaches the ``=``. A token that
ends in it stays, and the ids of ``24>>`` follow. A token that goes beyond it (``=2``, ``=-``) is taken back and its
text up to the ``=`` written with the value: the ids of ``=24>>``. A correct value that was sampled in other
tokens than the tokenizer writes it in is replaced too: that keeps the sentence above true without conditions.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import replace
from fractions import Fraction
from typing import Any

from sampling.engines.base import Completion, Engine, Request, SamplingOptions
from sampling.runtime.scheduler import together
from stepverify.records import InputError

_OPEN = re.compile(r"<<([^<>=\n]*)=")
_CLOSE = ">>"
_PROBE = "<<1-2.5=-1.5>>"
_TOKEN = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]*)?|[0-9]+\.?[0-9]*|\.[0-9]+|//|[-+*/()]")
_MAX_LENGTH = 100  # characters of an expression; GSM8K's longest has 30
_MAX_DIGITS = 15  # before the decimal point
_DECIMALS = 6  # GSM8K has values of at most 3


def calculate(expression: str) -> str | None:
    """The value of ``48/2`` as GSM8K writes it; None where it has none.

    Numbers (``12``, ``.5``, ``1,000``), ``+ - * / //``, signs and parentheses, in exact fractions: all that occurs
    in GSM8K. An integer has no decimals; other values have as many as they need, 6 at most (rounded, half away from
    zero), and no zero before the point. No value: anything else, division by zero, more than 100 characters, 15
    digits before the point, and what would round to zero.

    Of the 27,998 annotations of GSM8K (train and test), these are the values' texts:

    ======  =====================================================
    27,226  as here
       730  with further zeros: ``1.20*4=4.80``, ``8*18=144.00``
        41  with a zero before the point: ``12/60=0.2`` (92 without)
         1  as a fraction: ``3/4=3/4``
         0  another number
    ======  =====================================================
    """
    if len(expression) > _MAX_LENGTH or _TOKEN.sub("", expression).strip():
        return None
    parser = _Parser(_TOKEN.findall(expression))
    try:
        value = parser.sum()
    except (_NoValue, ZeroDivisionError):
        return None
    return None if parser.tokens else _written(value)


def _written(value: Fraction) -> str | None:
    scaled = abs(value) * 10**_DECIMALS
    rounded = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    whole, decimals = divmod(rounded, 10**_DECIMALS)
    if whole >= 10**_MAX_DIGITS or (rounded == 0) != (value == 0):
        return None
    point = f".{decimals:0{_DECIMALS}}".rstrip("0") if decimals else ""
    return ("-" if value < 0 else "") + (str(whole) if whole or not decimals else "") + point


class _NoValue(Exception):
    pass


class _Parser:
    """Recursive descent; an expression's length bounds the depth, and without powers the size of its numbers."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens[::-1]

    def _next_in(self, expected: tuple[str, ...]) -> str | None:
        return self.tokens.pop() if self.tokens and self.tokens[-1] in expected else None

    def sum(self) -> Fraction:
        value = self._product()
        while sign := self._next_in(("+", "-")):
            value += self._product() if sign == "+" else -self._product()
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while operator := self._next_in(("*", "/", "//")):
            factor = self._factor()
            if operator == "*":
                value *= factor
            else:
                value = value / factor if operator == "/" else Fraction(value // factor)
        return value

    def _factor(self) -> Fraction:
        if not self.tokens:
            raise _NoValue
        token = self.tokens.pop()
        if token in ("+", "-"):
            return self._factor() if token == "+" else -self._factor()
        if token == "(":
            value = self.sum()
            if not self._next_in((")",)):
                raise _NoValue
            return value
        if token[-1] in "*/)":
            raise _NoValue
        return Fraction(token.replace(",", ""))


class CalculatorEngine(Engine):
    """Samples by another engine, with the calculator's values in the annotations of the completions.

    ``Completion.num_calculator_edits`` counts them. Stop texts and ``max_tokens`` hold for the whole completion, num_calculator_edits tokens
    included. A request comes back when all of its completions are done.

    Args:
        engine: what samples.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.model = engine, engine.model
        self.capacity, self.usage = engine.capacity, engine.usage
        self._can_write: bool | None = None

    def identity(self) -> dict[str, Any]:
        """The engine's, and that there is a calculator."""
        return self.engine.identity() | {"calculator": True}

    @property
    def tokenizer(self) -> Any:
        """The engine's."""
        return self.engine.tokenizer

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        """Return the completions of a request, corrected.

        Raises:
            InputError: the tokenizer cannot write an annotation.
        """
        if self._can_write is None:
            self._can_write = self._decode(self._encode(_PROBE)) == _PROBE
        if not self._can_write:
            raise InputError(f"{self.model}: its tokenizer cannot write {_PROBE!r}, as the calculator has to")
        sampled = await self.engine.complete(request, options)
        return await together(self._corrected(request, i, c, options) for i, c in enumerate(sampled))

    async def aclose(self) -> None:
        """Close the engine."""
        await self.engine.aclose()

    async def _corrected(
        self, request: Request, index: int, completion: Completion, options: SamplingOptions
    ) -> Completion:
        """Return a completion without incorrect values: sample on after each corrected one.

        Requests have the seed of the completion and name what is settled: a resumed run asks for the same.
        """
        settled = num_calculator_edits = 0
        while (incorrect := self._first_incorrect(completion, settled, options)) is not None:
            (ids, settled), num_calculator_edits = incorrect, num_calculator_edits + 1
            key = f"{request.key}\x1e{index}\x1e{len(ids)}"
            rest = Request(key, request.prompt_ids, 1, request.seed + index, ids)
            (completion,) = await self.engine.complete(rest, options)
        return replace(completion, num_calculator_edits=num_calculator_edits)

    def _first_incorrect(
        self, sampled: Completion, settled: int, options: SamplingOptions
    ) -> tuple[list[int], int] | None:
        """Ids up to the first corrected value and ``>>``, and how many characters that is."""
        ids = sampled.token_ids
        if sampled.finish == "stop" and ids and ids[-1] in options.stop_ids:
            ids = ids[:-1]  # no part of the text
        text = self._decode(ids)
        for match in _OPEN.finditer(text, settled):
            if (value := calculate(match[1])) is None:
                continue
            through = text[: match.end()]
            end = bisect_left(range(len(ids)), True, key=lambda k: self._decode(ids[:k]).startswith(through))
            if end == len(sampled.token_ids):  # it ended with this very token: by a stop text, or at the limit
                return None
            if self._decode(ids[:end]) == through:
                correct = ids[:end] + self._encode(value + _CLOSE)
            else:
                before = self._decode(ids[: end - 1])
                correct = ids[: end - 1] + self._encode(through[len(before) :] + value + _CLOSE)
            if ids[: len(correct)] != correct:
                return correct, len(through + value + _CLOSE)
        return None

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _encode(self, text: str) -> list[int]:
        """Ids of ``text`` inside a line: after a line end, where no tokenizer adds a space of its own."""
        start = self.tokenizer.encode("\n", add_special_tokens=False)
        ids = self.tokenizer.encode("\n" + text, add_special_tokens=False)
        return (
            ids[len(start) :] if ids[: len(start)] == start else self.tokenizer.encode(text, add_special_tokens=False)
        )
