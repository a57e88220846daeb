"""Read correct solutions as worked problems for few-shot examples."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from stepverify.answers import Grader
from stepverify.readers.base import Reader, lines, take
from stepverify.records import Problem, Solution, StepLabel

_CHUNK = 64  # solutions read ahead


class Worked(Reader):
    """Read the first correct solution of each problem, one line per step.

    A solution is correct if its outcome label says so, or if people have rated all of its steps as correct and it
    states the reference answer: one in five that people called correct do not. A solution is not correct if it has a
    step rated neutral or incorrect or a step without a correct rollout, or if it states no final answer.

    Args:
        solutions: reader of the solutions.
        start: number of problems with a correct solution to skip.
        limit: number of problems to read at most.
        max_steps: longest solution, in steps; None takes any. Few-shot examples add tokens to every prompt.
    """

    def __init__(
        self, solutions: Reader, start: int = 0, limit: int | None = None, max_steps: int | None = None
    ) -> None:
        self.source, self.start, self.limit, self.max_steps = solutions, start, limit, max_steps

    def problems(self) -> Iterator[Problem]:
        """Yield the problems in the order of their first correct solutions."""
        yield from take(self._worked(), self.start, self.limit)

    def _worked(self) -> Iterator[Problem]:
        self.left_out.clear()
        seen = set[str]()
        with Grader() as grader:
            candidates = (s for s in self.source.solutions() if s.problem_id not in seen and self._may_be(s))
            while chunk := list(islice(candidates, _CHUNK)):
                for s, correct in zip(chunk, _state_answers(chunk, grader), strict=True):
                    if correct is None:
                        self.left_out.note("not read or compared in time", s.id)
                    elif correct and s.problem_id not in seen:
                        seen.add(s.problem_id)
                        steps = s.steps
                        if s.step_separator == "\n":  # a step is a line
                            steps = [line for step in s.steps if (line := " ".join(lines(step)))]
                        yield Problem(id=s.problem_id, problem=s.problem, answer=s.answer, steps=steps, meta=s.meta)

    def _may_be(self, solution: Solution) -> bool:
        """Check all but the answer."""
        labels = solution.step_labels or []
        if solution.correct is False or any(label and not _is_positive(label) for label in labels):
            return False
        if self.max_steps is not None and len(solution.steps) > self.max_steps:
            return False
        return bool(solution.correct) or (bool(labels) and all(label and label.rating for label in labels))


def _state_answers(solutions: list[Solution], grader: Grader) -> list[bool | None]:
    """Check which solutions state an answer: that of the problem, if no outcome label says that it is correct.

    None for a solution that was given up.
    """
    found = grader.extract(s.text for s in solutions)
    known = (s.correct or s.answer is None for s in solutions)
    golds = [a if is_known else s.answer for s, (a, _), is_known in zip(solutions, found, known, strict=True)]
    verdicts = grader.grade(zip(golds, (answer for answer, _ in found), strict=True))
    return [None if late else verdict for (_, late), verdict in zip(found, verdicts, strict=True)]


def _is_positive(label: StepLabel) -> bool:
    return label.rating == 1 or bool(label.share)
