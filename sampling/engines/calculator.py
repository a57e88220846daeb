"""Write GSM8K's calculator values into completions of any engine.

A model that was taught ``48/2 = <<48/2=24>>24`` does not have to compute 24 itself: after the first ``=`` of an
annotation the calculator writes its value and ``>>``, whatever the model would have sampled there (Cobbe et al. 2021,
appendix on calculator annotations).

Stopping at every ``=`` would read the whole prompt again for every annotation. Instead, whole solutions are sampled. A
solution is cut at its first annotation that does not continue with the calculator's value, the calculator's tokens are
appended, and this solution alone is sampled further, together with all other requests, until no annotation is left to
correct.

**The distribution is that of stopping at every ``=``, token by token, for every model and tokenizer.** Where the
calculator acts, and the tokens that it writes, depend only on the tokens before it. If the model sampled exactly these
tokens, the tokens after them were sampled as they would have been after writing them; if not, the tokens after them are
dropped and sampled again. Whether they are dropped depends only on the tokens in the calculator's place, and the new
tokens are sampled with random numbers of their own (:class:`~sampling.engines.Request`). With ``TransformersEngine`` a
random number belongs to its seed and position, so both ways give the same solution, not only the same distribution.

At the boundary: the calculator acts at the first token with which the text reaches the ``=``. A token that ends with it
stays, and the ids of ``24>>`` follow. A token that extends beyond it (``=2``, ``=-``) is removed, and its text up to
the ``=`` is written together with the value: the ids of ``=24>>``. A correct value that was sampled in other tokens
than those the tokenizer writes is replaced too, so that the statement above holds without conditions.
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
    """Calculate the value of ``48/2`` as GSM8K writes it; None without one.

    Takes numbers (``12``, ``.5``, ``1,000``), ``+ - * / //``, signs and parentheses, which is all that occurs in GSM8K,
    and calculates in exact fractions. An integer has no decimals; other values have as many as they need, at most 6
    (rounded, half away from zero), and no zero before the point. Anything else has no value, nor do divisions by zero,
    expressions of more than 100 characters, values of more than 15 digits before the point, and values that would round
    to zero.

    The 27,998 annotations of GSM8K (train and test) write their values as follows:

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
    """Evaluate an expression by recursive descent.

    The length limit bounds the depth and, since there are no powers, the size of numbers.
    """

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
    """Sample with another engine, and write the calculator's values.

    ``Completion.num_calculator_edits`` counts them. Stop texts and ``max_tokens`` apply to the whole completion, the
    calculator's tokens included. A request returns when all its completions are done.

    Args:
        engine: the engine that samples.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.model, self.usage = engine, engine.model, engine.usage
        self._can_write: bool | None = None

    def identity(self) -> dict[str, Any]:
        """Return the identity of the engine, marked with the calculator."""
        return self.engine.identity() | {"calculator": True}

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """Return the completions that keep the engine busy."""
        return self.engine.capacity

    @property
    def caches_prefixes(self) -> bool:  # type: ignore[override]
        """Tell whether the engine caches prefixes."""
        return self.engine.caches_prefixes

    @property
    def tokenizer(self) -> Any:
        """Return the tokenizer of the engine."""
        return self.engine.tokenizer

    @property
    def num_parameters(self) -> int | None:  # type: ignore[override]
        """Return the number of parameters of the engine's model."""
        return self.engine.num_parameters

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        """Return the corrected completions of a request.

        Raises:
            InputError: the tokenizer cannot write an annotation.
        """
        if self._can_write is None:
            self._can_write = self._decode(self._encode(_PROBE)) == _PROBE
        if not self._can_write:
            raise InputError(f"{self.model}: its tokenizer cannot encode {_PROBE!r}, which the calculator needs")
        asked = replace(request, served={})  # those that a server has served are not corrected yet
        try:
            sampled = await self.engine.complete(asked, options)
        except BaseException:
            done = ((i, c) for i, c in asked.served.items() if c.token_ids is not None)
            request.served |= {i: c for i, c in done if self._first_incorrect(c, 0, options) is None}
            raise
        return await together(self._corrected(request, i, c, options) for i, c in enumerate(sampled))

    def status(self) -> str:
        """Return the status of the engine."""
        return self.engine.status()

    async def aclose(self) -> None:
        """Close the engine."""
        await self.engine.aclose()

    async def _corrected(
        self, request: Request, index: int, completion: Completion, options: SamplingOptions
    ) -> Completion:
        """Sample again after each corrected value until none is incorrect.

        Requests have the seed of the completion, and their keys name the tokens that are fixed, so a resumed run asks
        for the same.
        """
        settled = num_calculator_edits = 0
        while (incorrect := self._first_incorrect(completion, settled, options)) is not None:
            (ids, settled), num_calculator_edits = incorrect, num_calculator_edits + 1
            key = f"{request.key}\x1e{index}\x1e{len(ids)}"
            rest = Request(key, request.prompt_ids, 1, request.seed + index, ids)
            (completion,) = await self.engine.complete(rest, options)
        request.served[index] = replace(completion, num_calculator_edits=num_calculator_edits)
        return request.served[index]

    def _first_incorrect(
        self, sampled: Completion, settled: int, options: SamplingOptions
    ) -> tuple[list[int], int] | None:
        """Return the ids up to the first corrected value, and their length.

        The ids include the ``>>`` after the value; the length is that of their text in characters. None if nothing has
        to be corrected.
        """
        if sampled.finish == "refused":
            return None
        if sampled.token_ids is None:
            raise InputError(f"{self.model}: the calculator needs token ids, which this server does not return")
        ids = sampled.token_ids
        if sampled.finish == "stop" and ids and ids[-1] in options.stop_ids:
            ids = ids[:-1]  # not part of the text
        text = self._decode(ids)
        for match in _OPEN.finditer(text, settled):
            if (value := calculate(match[1])) is None:
                continue
            through = text[: match.end()]
            end = bisect_left(range(len(ids)), True, key=lambda k: self._decode(ids[:k]).startswith(through))
            if end == len(sampled.token_ids):  # the completion ended with this token, by a stop text or at the limit
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
        """Encode ``text`` as it is inside a line.

        It is encoded after a line end, where no tokenizer adds a space of its own.
        """
        start = self.tokenizer.encode("\n", add_special_tokens=False)
        ids = self.tokenizer.encode("\n" + text, add_special_tokens=False)
        return (
            ids[len(start) :] if ids[: len(start)] == start else self.tokenizer.encode(text, add_special_tokens=False)
        )
