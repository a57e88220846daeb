"""Generate chained arithmetic modulo a small number, with exact labels.

A problem assigns variables one after the other and asks for the last one::

    a = 4 ; b = a * 3 ; c = 6 - b ; c ?

A careful solution has one step per assignment, with values inserted, and the final answer (modulo 7 here); a hasty one
does two assignments in one step::

    b = 4 * 3 = 5               c = 6 - ( 4 * 3 ) = 1
    c = 6 - 5 = 1               #### 1
    #### 1

A model trained on both styles writes both, and errs far more often in hasty steps: modulo 7 there are 252 different
operations to learn, and 9,072 pairs of them. A verifier can learn this difference from final answers alone.
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
    """Generate problems from a seed; splits share no problem, whatever their seeds.

    Args:
        split: part of the problems. A hash of its text determines a problem's split.
        num_problems: number of problems.
        modulus: modulus of all arithmetic.
        num_steps: assignments after the first one.
        operators: some of ``+-*``.
        hasty: probability that a worked solution does an assignment together with the next one.
        worked: include the worked solution; without it only the final answer is known.
        seed: seed of the problems.
    """

    def __init__(
        self,
        split: Literal["demonstrations", "train", "validation", "test"],
        num_problems: int,
        modulus: int = 7,
        num_steps: int = 6,
        operators: str = "+-*",
        hasty: float = 0.0,
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
        if not 0.0 <= hasty <= 1.0:
            raise InputError(f"hasty: expected a probability from 0 to 1, got {hasty}")
        self.split, self.num_problems, self.modulus, self.num_steps = split, num_problems, modulus, num_steps
        self.operators, self.hasty, self.worked, self.seed = operators, hasty, worked, seed

    def problems(self) -> Iterator[Problem]:
        """Yield the problems with id ``synthetic/<split>/<number>``; no text occurs twice.

        Raises:
            InputError: fewer different problems of this size exist than requested.
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
            chain = Chain(text, self.modulus)
            number = len(seen)
            seen.add(text)
            yield Problem(
                id=f"synthetic/{self.split}/{number}",
                problem=text,
                answer=str(chain.answer),
                steps=chain.worked(self.hasty, random.Random(text)) if self.worked else [],
                meta={"modulus": self.modulus},
            )

    def _draw(self, rng: random.Random) -> str:
        assignments = [f"a = {rng.randrange(self.modulus)}"]
        for i in range(1, self.num_steps + 1):
            operands = [_VARIABLES[i - 1], str(rng.randrange(1, self.modulus))]
            rng.shuffle(operands)
            assignments.append(f"{_VARIABLES[i]} = {operands[0]} {rng.choice(self.operators)} {operands[1]}")
        return " ; ".join([*assignments, f"{_VARIABLES[self.num_steps]} ?"])


def _split_of(text: str) -> str:
    return SPLITS[hashlib.sha256(text.encode()).digest()[0] % len(SPLITS)]


class Chain:
    """Work out a problem text.

    Attributes:
        single: for each assignment after the first one, the step that does it alone.
        double: for each of those but the first, the step that does it together with the one before.
        answer: the value asked for.

    Raises:
        InputError: not a problem of this kind.
    """

    def __init__(self, problem: str, modulus: int) -> None:
        *assignments, question = problem.split(" ; ")
        try:
            name, first = assignments[0].split(" = ")
            value, before, self.single, self.double = int(first), "", list[str](), list[str]()
            for assignment in assignments[1:]:
                newest, (name, expression) = name, assignment.split(" = ")
                left, operator, right = expression.split(" ")
                x, y = (value if operand == newest else int(operand) for operand in (left, right))
                written = [str(value) if operand == newest else operand for operand in (left, right)]
                nested = [f"( {before} )" if operand == newest else operand for operand in (left, right)]
                value, before = _OPERATORS[operator](x, y) % modulus, f"{written[0]} {operator} {written[1]}"
                if self.single:
                    self.double.append(f"{name} = {nested[0]} {operator} {nested[1]} = {value}")
                self.single.append(f"{name} = {before} = {value}")
            if question != f"{name} ?":
                raise ValueError(question)
        except (ValueError, KeyError, IndexError) as error:
            raise InputError(f"not a synthetic problem: {problem[:80]!r} ({error!r})") from None
        self.answer = value

    def worked(self, hasty: float, rng: random.Random) -> list[str]:
        """Write a solution, final line included.

        An assignment is combined with the next one with probability ``hasty``.
        """
        steps, i = [], 0
        while i < len(self.single):
            together = i < len(self.double) and rng.random() < hasty
            steps.append(self.double[i] if together else self.single[i])
            i += 1 + together
        return [*steps, f"#### {self.answer}"]


def verdicts(problem: str, steps: Sequence[str], modulus: int) -> list[bool]:
    """Label each step exactly: correct if some correct solution has this line.

    So a step that calculates correctly from an incorrect value is incorrect, and a step after an incorrect one can be
    correct.
    """
    chain = Chain(problem, modulus)
    correct = {*chain.single, *chain.double, f"#### {chain.answer}"}
    return [step in correct for step in steps]
