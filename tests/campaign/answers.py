"""Hostile answers: each gets a verdict or runs out of its time, in a worker; this process is never in danger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import get_args

from stepverify.answers import Fallback, Grader
from tests.campaign.trial import Trial, forked

NAME = "answers"

_LIMIT = 0.5  # seconds of CPU time for a comparison
_READING = 5.0  # seconds of CPU time in which a text must be read, of which the longest here has 300,000 characters

_TOGETHER = 6  # bombs that share one start of the workers

_PIECES = [
    "1", "7", "x", "-", "+", "*", "/", "^", "(", ")", "{", "}", "[", "]", "|", ",", ".", "=", "<", ">", "!", "%", "$", "\\", " ",
    "\\frac", "\\sqrt", "\\left(", "\\right)", "\\cup", "\\infty", "\\pi", "\\text{", "\\boxed{", "\\begin{pmatrix}",
    "\\end{pmatrix}", "&", "\\\\", "\\sum_{", "\\int", "\\log", "\\sin", "!!", "10^", "e^", "1e9999", "999999999999999999999999",
    "\\cdot", "√", "π", "½", "²", "元", "４２", "−", "\u202e", "\u0000", "\ufeff", "😀", "٣", "forty", " two", "hundred", "####", "答案是",
    "The answer is ", "<think>", "</think>", "**Final Answer**", "<answer>", "</answer>", "\n", "cm", "dollars", "\\%", "x=", "y=",
]  # fmt: skip

BOMBS = {
    "tower": "9^{9^{9^{9}}}", "tower of factorials": "((((9!)!)!)!)!", "long factorial": "100000000!", "long power": "2^{10^{12}}",
    "power of a power": "(x+1)^{(x+1)^{(x+1)^{999}}}", "expansion": "(a+b+c+d+e+f)^{60}-(a+b+c+d+e+f)^{59}(a+b+c+d+e+f)",
    "sum": "\\sum_{k=1}^{10^{9}} \\frac{1}{k^2}", "product": "\\prod_{k=1}^{10^9} k", "integral": "\\int_0^1 x^{x^{x^x}} dx",
    "root of roots": "\\sqrt{" * 60 + "2" + "}" * 60, "fractions": "\\frac{1}{1+" * 60 + "x" + "}" * 60,
    "parentheses 400 deep": "\\left(" * 400 + "1" + "\\right)" * 400, "braces 400 deep": "{" * 400 + "x" + "}" * 400,
    "braces 100000 deep": "{" * 100_000 + "x" + "}" * 100_000, "open": "(" * 30_000, "boxes": "\\boxed{" * 5_000 + "1",
    "digits": "7" * 300_000, "decimals": "0." + "3" * 300_000, "4301 digits": "9" * 4301, "1e": "1e999999999", "-1e": "-1e-999999999",
    "minus": "-" * 20_000 + "1", "plus": "1+" * 20_000 + "1", "list": "1," * 20_000 + "1", "equations": "x=1," * 5_000,
    "spaces": " " * 300_000 + "1", "line ends": "\n" * 300_000 + "1", "words": "one hundred " * 5_000, "text": "a" * 300_000,
    "absolute": "|" * 5_000 + "x" + "|" * 5_000, "matrix": "\\begin{pmatrix}" + "1&" * 3_000 + "1\\end{pmatrix}",
    "intervals": "[1,2]\\cup" * 2_000 + "[3,4]", "marks": "#### " * 50_000, "answers": "The answer is " * 20_000 + "7",
    "thoughts": "<think>" * 20_000, "dollars": "$" * 100_000, "backslashes": "\\" * 100_000, "percent": "1" + "%" * 50_000,
    "signs": "1" + "²" * 20_000, "half pair": "1\ud800", "nul": "1\u0000", "binomial": "\\binom{10^9}{10^8}", "mod": "7^{10^{15}} \\mod 13",
    "log": "\\log(\\log(\\log(10^{10^{10^{10}}})))", "repeating": "0.\\overline{" + "142857" * 3_000 + "}", "base": "1" * 5_000 + "_{2}",
    "trigonometry": "\\sin(" * 200 + "x" + ")" * 200, "variables": "+".join(f"x_{{{i}}}^{i}" for i in range(400)),
}  # fmt: skip


def trials(folder: Path, size: float, seed: int) -> Iterator[Trial]:
    """Yield bombs against an answer, all at ``size`` 1, and 3,000 pairs of answers made of pieces; several a trial."""
    bombs = list(BOMBS.items())[:: max(1, round(1 / size))]
    for begin in range(0, len(bombs), _TOGETHER):
        group = bombs[begin : begin + _TOGETHER]
        pairs = [pair for _, bomb in group for pair in ((bomb, "7"), ("x+1", bomb), (bomb, bomb + " "))]
        yield Trial(
            f"bombs: {', '.join(name for name, _ in group)}", "hostile answers, time bombs", _Graded(pairs).trial
        )
    rng = Random(f"{seed} answers")
    for number in range(round(60 * size)):
        pairs = [(_made(rng), _made(rng)) for _ in range(50)]
        yield Trial(f"pieces {number}", "hostile answers, in fifties", _Graded(pairs).trial)


def _made(rng: Random) -> str:
    return "".join(rng.choice(_PIECES) * rng.choice((1, 1, 1, 2, 50)) for _ in range(rng.randrange(1, 12)))


class _Graded:
    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs

    def trial(self, own: Path) -> tuple[str, str]:
        def work() -> None:
            texts = [text for pair in self.pairs for text in pair]
            with Grader(num_workers=1, time_limit=_READING) as grader:
                for fallback in get_args(Fallback):
                    found = grader.extract(texts, fallback)
                    slow = [text for text, (_, timed_out) in zip(texts, found, strict=True) if timed_out]
                    if slow:  # their time is linear in the length
                        raise TimeoutError(f"reading takes over {_READING:g} s of CPU time: {slow[0][:60]!r}")
            with Grader(num_workers=1, time_limit=_LIMIT) as grader:
                verdicts = grader.grade(self.pairs)
                assert all(verdict in (True, False, None) for verdict in verdicts)
                classes = grader.classes([text for pair in self.pairs for text in pair][:4])
                assert all(number is None or number >= 0 for number in classes)
                assert grader.grade([("7", "7"), ("x+1", "1+x")]) == [True, True]

        end = forked(work, 240)
        if end.code is None:
            return "hang", end.err[-500:]
        return ("graded", "") if end.code == 0 else ("traceback", end.err[-1500:])
