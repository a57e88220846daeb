r"""Parse an answer as a SymPy object, with Math-Verify's grammar.

See https://github.com/huggingface/Math-Verify.
"""

from __future__ import annotations

import logging
import re
from functools import cache, lru_cache
from typing import Any

from stepverify.answers.labels import hide_labels
from stepverify.answers.number import number
from stepverify.answers.spelling import DELIMITED, is_prose, normalize
from stepverify.answers.units import scale_of_unit

_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})")
_APART = re.compile(r"(?<![_^\d.])\d[\d.]* +\d")
_PRIMED = re.compile(r"(?<![A-Za-z])([A-Za-z])'+")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_TAIL = re.compile(
    r"(?:(?: *\\text\{[^{}\d]*\}| +[a-z]{2,}(?:/[a-z]+)?|(?<=\})[a-z]{2,})(?: *\^ *(?:\d|\{\d\})|[²³])?){1,5}$"
)


@lru_cache(maxsize=1024)
def read(answer: str) -> list[Any]:
    """Parse an answer as SymPy objects, with the text they are from."""
    from math_verify import parse
    from sympy import Rational

    text = normalize(answer)
    plain = number(answer)
    if plain and "." not in text:  # decimals are kept: decimals printed from floats are rounded
        values = [plain.value, plain.value / 100] if plain.percent else [plain.value]
        return [*(Rational(value.numerator, value.denominator) for value in values), text]
    latex, expression = _targets()
    if DELIMITED.search(text) or is_prose(text):  # Math-Verify picks the formula or number that answers
        return parse(answer, [latex, expression], parsing_timeout=None)
    if r"\dots" in text or _APART.search(text):
        return [text]  # the continuation is unknown; the grammar would parse 3 5 as 3 + 5
    text = _PRIMED.sub(r"\1_{9999}", text)  # the grammar drops primes
    text = hide_labels(_without_unit(text))
    if _TRIGONOMETRIC.search(text):
        text = _DEGREES.sub(r"\\frac{\1\\pi}{180}", text)
    return parse(f"${text}$", [latex], parsing_timeout=None)  # a formula as a whole or not at all


def _without_unit(text: str) -> str:
    r"""Remove the unit of ``8\sqrt{3} \text{ cm}^2``.

    ``\sqrt{2} m`` is a product, ``2n \text{ odd}`` has a condition.
    """
    tail = _TAIL.search(text)
    value = text[: tail.start()] if tail else ""
    constant = re.search(r"\d|\\pi", value) and not re.search(r"(?<![A-Za-z\\])[A-Za-z]", value)
    return value if tail and constant and scale_of_unit(tail[0]) == 1 else text


@cache
def _targets() -> tuple[Any, Any]:
    """Configure Math-Verify to find formulas, and numbers in prose.

    By default it would take a final letter for a unit: 2t is 2.
    """
    from latex2sympy2_extended import NormalizationConfig
    from math_verify.parser import ExprExtractionConfig, LatexExtractionConfig

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns about a missing timeout, which Grader sets
    _parse_in_two_stages()
    spelling = NormalizationConfig(basic_latex=True, malformed_operators=True, nits=True, boxed="all")
    return LatexExtractionConfig(normalization_config=spelling), ExprExtractionConfig()


def _parse_in_two_stages() -> None:
    """Parse with SLL prediction first and full LL only if that fails.

    This gives the same trees in half the time: what SLL parses, LL parses to the same tree (Parr, Harwell and Fisher
    2014, Adaptive LL(*) Parsing). LL does not cache predictions in full context, and so repeats them for every answer.
    """
    from antlr4.atn.PredictionMode import PredictionMode
    from latex2sympy2_extended import latex2sympy2

    class TwoStageParser(latex2sympy2.PSParser):
        def math(self) -> Any:
            self._input.fill()  # raises on unknown commands, which the second stage would skip silently
            self._interp.predictionMode = PredictionMode.SLL
            try:
                return super().math()
            except Exception:  # its listener raises these on a syntax error
                self.reset()
                self._interp.predictionMode = PredictionMode.LL
                return super().math()

    latex2sympy2.PSParser = TwoStageParser
