"""Collect verifier values and labels of scored solutions in flat arrays.

The values are those of steps, of first errors and of solutions.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nan
from pathlib import Path
from typing import Literal

from sampling.selection.calibration import Calibration
from sampling.selection.calibration_files import read_mapped
from stepverify.data.targets import StepTargets
from stepverify.records import Solution, StepLabel

Neutral = Literal["positive", "negative"]


def _floats() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Steps:
    """Hold the labelled steps that a verifier scored.

    Attributes:
        values: the verifier's values.
        correct: 1 for a correct step, 0 for an incorrect one.
        places: indices of the steps in their solutions, from 0.
        lengths: numbers of characters.
        subsets: numbers of the subsets.
        problems: numbers of the problems.
    """

    values: array[float] = field(default_factory=_floats)
    correct: array[float] = field(default_factory=_floats)
    places: array[float] = field(default_factory=_floats)
    lengths: array[float] = field(default_factory=_floats)
    subsets: array[float] = field(default_factory=_floats)
    problems: array[float] = field(default_factory=_floats)


@dataclass(slots=True)
class FirstErrors:
    """Hold the solutions whose first error is known.

    Attributes:
        first: index of the first incorrect step; -1 if there is none.
        low: the first step with a value below t is the first incorrect one for thresholds t above ``low`` ...
        high: ... up to ``high``. A solution without values is judged correctly at no threshold.
        lowest: index of the lowest value, the first of equals; NaN without values.
        num_steps: number of steps of the solution.
        subsets: number of its subset.
    """

    first: array[float] = field(default_factory=_floats)
    low: array[float] = field(default_factory=_floats)
    high: array[float] = field(default_factory=_floats)
    lowest: array[float] = field(default_factory=_floats)
    num_steps: array[float] = field(default_factory=_floats)
    subsets: array[float] = field(default_factory=_floats)


@dataclass(slots=True)
class Solutions:
    """Hold the graded solutions that a verifier scored.

    Attributes:
        values: the values of all solutions, concatenated.
        counts: number of values of each solution.
        correct: 1 for a correct solution, 0 for an incorrect one.
        num_steps: number of steps of each.
        num_tokens: number of tokens of each; NaN if it is unknown.
        problems: number of its problem.
    """

    values: array[float] = field(default_factory=_floats)
    counts: array[float] = field(default_factory=_floats)
    correct: array[float] = field(default_factory=_floats)
    num_steps: array[float] = field(default_factory=_floats)
    num_tokens: array[float] = field(default_factory=_floats)
    problems: array[float] = field(default_factory=_floats)


@dataclass(slots=True)
class Judgements:
    """Hold the values of one verifier.

    ``by_step``: every solution had one value per step. A solution with one step and one value alone does not make an
    outcome verifier a judge of steps.
    """

    by_step: bool = True
    steps: Steps = field(default_factory=Steps)
    firsts: FirstErrors = field(default_factory=FirstErrors)
    solutions: Solutions = field(default_factory=Solutions)

    @property
    def of_steps(self) -> bool:
        """Tell whether the verifier scored labelled steps."""
        return self.by_step and bool(self.steps.values)


@dataclass(slots=True)
class Collected:
    """Hold the values by verifier, subset names, and the number of problems.

    A subset is ``meta.subset`` of a solution; empty if a solution has none.
    """

    subsets: list[str]
    num_problems: int
    verifiers: dict[str, Judgements]


def collect(path: Path, neutral: Neutral = "positive", maps: Mapping[str, Calibration] | None = None) -> Collected:
    """Collect verifier values from scored solutions.

    Args:
        path: scored solutions; those without ``correct`` count for the steps only.
        neutral: what a step rated 0 counts as.
        maps: verifier → calibration of its values.
    """
    verifiers: dict[str, Judgements] = {}
    subsets: dict[str, int] = {}
    problems: dict[str, int] = {}
    for solution in read_mapped(path, maps or {}):
        subset = subsets.setdefault(str(solution.meta.get("subset", "")), len(subsets))
        problem = problems.setdefault(solution.problem_id, len(problems))
        truths = [step_truth(label, neutral) for label in solution.step_labels or ()]
        for name, values in solution.scores.items():
            if name not in verifiers:
                verifiers[name] = Judgements()
            into = verifiers[name]
            by_step = not values or len(values) == len(solution.steps)
            into.by_step &= by_step
            if truths and by_step:
                _add_steps(into, solution, values, truths, subset, problem)
            if solution.correct is not None and values:
                into.solutions.values.extend(values)
                into.solutions.counts.append(len(values))
                into.solutions.correct.append(solution.solved)
                into.solutions.num_steps.append(len(solution.steps))
                into.solutions.num_tokens.append(nan if solution.token_ids is None else len(solution.token_ids))
                into.solutions.problems.append(problem)
    return Collected([*subsets], len(problems), verifiers)


def _add_steps(
    into: Judgements, solution: Solution, values: Sequence[float], truths: Sequence[bool | None], subset: int,
    problem: int,
) -> None:  # fmt: skip
    if values:
        for place, (value, truth) in enumerate(zip(values, truths, strict=True)):
            if truth is not None:
                into.steps.values.append(value)
                into.steps.correct.append(truth)
                into.steps.places.append(place)
                into.steps.lengths.append(len(solution.steps[place]))
                into.steps.subsets.append(subset)
                into.steps.problems.append(problem)
    if (first := first_error(truths)) is not None:
        low, high = hit_range(values, first)
        into.firsts.first.append(first)
        into.firsts.low.append(low)
        into.firsts.high.append(high)
        into.firsts.lowest.append(values.index(min(values)) if values else nan)
        into.firsts.num_steps.append(len(solution.steps))
        into.firsts.subsets.append(subset)


def step_truth(label: StepLabel | None, neutral: Neutral = "positive") -> bool | None:
    """Return whether a step label says correct; None if it is unknown.

    A step is correct if it was rated correct, or if any rollout reached the correct answer: one is enough (Wang et al.
    2023, section 3.3). Neutral counts as correct by default (Lightman et al. 2023, section 2.6).
    """
    (target,) = StepTargets(neutral=neutral)([label])
    return None if target is None else target == 1


def first_error(truths: Sequence[bool | None]) -> int | None:
    """Return the index of the first incorrect step.

    -1 if all steps are correct, None if an unknown step comes before it.
    """
    for index, truth in enumerate(truths):
        if not truth:
            return index if truth is False else None
    return -1


def hit_range(values: Sequence[float], first: int) -> tuple[float, float]:
    """Return the thresholds at which a verifier finds the first error.

    At thresholds t with low < t <= high, the first value below t is that of step ``first``, or no value is below t if
    ``first`` is -1. There is no such threshold (low >= high) without values, or if an earlier step has no higher value.

    Returns:
        (low, high).
    """
    if not values:
        return inf, -inf
    return (-inf, min(values)) if first < 0 else (values[first], min(values[:first], default=inf))
