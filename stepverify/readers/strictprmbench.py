"""Read StrictPRMBench: 32 solutions per problem, scored by seven process reward models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from stepverify.jsonl import read_json_lines
from stepverify.readers.base import Reader, entry
from stepverify.record_checks import check_scores
from stepverify.records import InputError, Problem, Solution

_ID = re.compile(r"([a-z][a-z0-9]*)_(\d+)")


class StrictPRMBench(Reader):
    """Read solutions with ``scores``, one value per step from each verifier.

    A step may have several lines. ``predicted`` and ``correct`` are as released; ``sampling label`` replaces them: many
    of the released outcome labels are incorrect (an answer 8,000 was cut to 000).

    Args:
        steps: ``gsm8k_bon32_steps_text.jsonl`` (``.gz`` too), the texts; or those of ``math500``.
        scores: ``gsm8k_bon32_scores.jsonl``, the values, in the same order.
    """

    def __init__(self, steps: str, scores: str) -> None:
        self.steps, self.scores = steps, scores

    def problems(self) -> Iterator[Problem]:
        """Yield problems with the ids of :class:`GSM8K` and of MATH-500.

        ``gsm8k_007`` is ``gsm8k/test/7``, row 7 of the test split; ``math500_013`` is ``math500/test/13``, row 13 of
        MATH-500.
        """
        for where, data in read_json_lines(self.scores):
            yield self._problem(where, data)

    def solutions(self) -> Iterator[Solution]:
        """Yield the candidates of each problem in the order of the files.

        Raises:
            InputError: the files do not belong together, or a verifier does not have one value per step.
        """
        for scored, texts in zip_longest(read_json_lines(self.scores), read_json_lines(self.steps)):
            if scored is None or texts is None:
                raise InputError(f"{self.steps} and {self.scores}: differ in their numbers of problems")
            problem = self._problem(*scored)
            (where, data), (there, text) = scored, texts
            candidates, written = (entry(w, d, "candidates", list) for w, d in (scored, texts))
            for key, a, b in (
                ("problem_id", data["problem_id"], entry(there, text, "problem_id", str)),
                ("number of candidates", len(candidates), len(written)),
            ):
                if a != b:
                    raise InputError(f"{there}: {key}: {b!r}, but {a!r} in {where}")
            for index, (candidate, with_text) in enumerate(zip(candidates, written, strict=True)):
                yield _solution(problem, index, f"{where}: candidate {index}", candidate, with_text)

    @staticmethod
    def _problem(where: str, data: Any) -> Problem:
        name, question, answer = (entry(where, data, key, str) for key in ("problem_id", "question", "ground_truth"))
        if not (number := _ID.fullmatch(name)):
            raise InputError(f"{where}: key 'problem_id': expected gsm8k_<number> or math500_<number>, got {name!r}")
        return Problem(id=f"{number[1]}/test/{int(number[2])}", problem=question.strip(), answer=answer)


def _solution(problem: Problem, index: int, where: str, scored: Any, text: Any) -> Solution:
    steps, scores = entry(where, text, "steps", list), entry(where, scored, "step_scores", dict)
    for name, values in scores.items():
        if not isinstance(values, list) or len(values) != len(steps):
            raise InputError(f"{where}: key 'step_scores.{name}': expected {len(steps)} values, one per step")
        for i, value in enumerate(values):
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise InputError(f"{where}: key 'step_scores.{name}[{i}]': expected a number, got {value!r:.80}")
    try:
        check_scores(scores, len(steps), {}, "step_scores")
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    answer, verdict = entry(where, scored, "answer", str), entry(where, scored, "is_correct", bool)
    return Solution.of(problem, index, steps, predicted=answer, correct=verdict, scores=scores)
