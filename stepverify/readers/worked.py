"""Read correct solutions as worked problems for few-shot examples."""

from __future__ import annotations

from collections.abc import Iterator

from stepverify.answers import Grader, extract_answer
from stepverify.readers.base import Reader, lines, take
from stepverify.records import Problem, Solution, StepLabel


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
        seen = set()
        with Grader() as grader:
            for s in self.source.solutions():
                short = self.max_steps is None or len(s.steps) <= self.max_steps
                if short and s.problem_id not in seen and _is_correct(s, grader):
                    seen.add(s.problem_id)
                    steps = s.steps
                    if s.step_separator == "\n":  # a step is a line
                        steps = [line for step in s.steps if (line := " ".join(lines(step)))]
                    yield Problem(id=s.problem_id, problem=s.problem, answer=s.answer, steps=steps, meta=s.meta)


def _is_correct(solution: Solution, grader: Grader) -> bool:
    labels, stated = solution.step_labels or [], extract_answer(solution.text)
    if stated is None or solution.correct is False or any(label and not _is_positive(label) for label in labels):
        return False
    if solution.correct is None:
        rated = bool(labels) and all(label and label.rating for label in labels)
        return rated and (solution.answer is None or [*grader.grade([(solution.answer, stated)])] == [True])
    return True


def _is_positive(label: StepLabel) -> bool:
    return label.rating == 1 or bool(label.share)
