"""Chained arithmetic modulo a small number: problems without end, worked solutions, exact verdicts.

A problem assigns variables one after the other and asks for the last one::

    a = 7 ; b = a * 3 ; c = 5 - b ; c ?

A solution has one step an assignment, values put in, and the final answer (modulo 11 here)::

    b = 7 * 3 = 10
    c = 5 - 10 = 6
    #### 6
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from stepverify.readers.base import Reader
from stepverify.records import InputError, Problem

SPLITS = ("demonstrations", "train", "validation", "test")
_VARIABLES = "abcdefghij"
_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
}


class Synthetic(Reader):
    """Seeded problems; the splits share no problem whatever their seeds.

    Args:
        split: which part. A problem's text decides by hash which split it can be in.
        num_problems: how many.
        modulus: all arithmetic is modulo this.
        num_steps: assignments after the first one.
        operators: some of ``+-*``.
        reuse: chance that the second operand is an earlier variable, not a constant. The first is always
            the newest variable, so no step is idle.
        worked: give the worked solution too; without it only the final answer is known.
        seed: of the problems.
    """

    def __init__(
        self,
        split: Literal["demonstrations", "train", "validation", "test"],
        num_problems: int,
        modulus: int = 11,
        num_steps: int = 4,
        operators: str = "+-*",
        reuse: float = 0.5,
        worked: bool = True,
        seed: int = 0,
    ) -> None:
        if num_problems < 1:
            raise InputError(f"num_problems: expected >= 1, got {num_problems}")
        if modulus < 2:
            raise InputError(f"modulus: expected >= 2, got {modulus}")
        if not 1 <= num_steps < len(_VARIABLES):
            raise InputError(f"num_steps: expected 1 to {len(_VARIABLES) - 1}, got {num_steps}")
        if not operators or set(operators) - _OPERATORS.keys():
            raise InputError(f"operators: expected some of '+-*', got {operators!r}")
        self.split, self.num_problems, self.modulus, self.num_steps = split, num_problems, modulus, num_steps
        self.operators, self.reuse, self.worked, self.seed = operators, reuse, worked, seed

    def problems(self) -> Iterator[Problem]:
        """Yield the problems with id ``synthetic/<split>/<number>``; no text occurs twice.

        Raises:
            InputError: there are fewer different problems of this size than were asked for.
        """
        rng = random.Random(f"{self.seed}/{self.split}")
        seen: set[str] = set()
        misses = 0
        while len(seen) < self.num_problems:
            text = self._draw(rng)
            if text in seen or _split_of(text) != self.split:
                misses += 1
                if misses > 1000 * (len(seen) + 10):
                    raise InputError(
                        f"num_problems: found only {len(seen)} different problems of {self.num_steps} steps"
                    )
                continue
            steps, answer = solve(text, self.modulus)
            number = len(seen)
            seen.add(text)
            yield Problem(
                id=f"synthetic/{self.split}/{number}",
                problem=text,
                answer=str(answer),
                steps=steps if self.worked else [],
                meta={"modulus": self.modulus},
            )

    def _draw(self, rng: random.Random) -> str:
        assignments = [f"a = {rng.randrange(self.modulus)}"]
        for i in range(1, self.num_steps + 1):
            newest = _VARIABLES[i - 1]
            other = _VARIABLES[rng.randrange(i)] if rng.random() < self.reuse else str(rng.randrange(1, self.modulus))
            left, right = (newest, other) if rng.random() < 0.5 else (other, newest)
            assignments.append(f"{_VARIABLES[i]} = {left} {rng.choice(self.operators)} {right}")
        return " ; ".join([*assignments, f"{_VARIABLES[self.num_steps]} ?"])


def _split_of(text: str) -> str:
    return SPLITS[hashlib.sha256(text.encode()).digest()[0] % len(SPLITS)]


def solve(problem: str, modulus: int) -> tuple[list[str], int]:
    """The worked solution of a problem text, final line included, and its answer.

    Raises:
        InputError: not a problem of this kind.
    """
    *assignments, question = problem.split(" ; ")
    values: dict[str, int] = {}
    steps: list[str] = []
    try:
        for assignment in assignments:
            name, expression = assignment.split(" = ")
            parts = expression.split(" ")
            if len(parts) == 1:
                values[name] = int(parts[0])
                continue
            left, operator, right = parts
            x, y = (values[p] if p in values else int(p) for p in (left, right))
            values[name] = _OPERATORS[operator](x, y) % modulus
            steps.append(f"{name} = {x} {operator} {y} = {values[name]}")
        answer = values[question.removesuffix(" ?")]
    except (ValueError, KeyError) as error:
        raise InputError(f"not a synthetic problem: {problem[:80]!r} ({error!r})") from None
    return [*steps, f"#### {answer}"], answer


def verdicts(problem: str, steps: Sequence[str], modulus: int) -> list[bool]:
    """The oracle: a step is right if and only if it is a line of the worked solution, word for word.

    So a step that calculates rightly from a wrong value is wrong, and a step behind a wrong one can be right.
    """
    right = set(solve(problem, modulus)[0])
    return [step in right for step in steps]
