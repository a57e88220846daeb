"""The project's own records: what the sampling stages write, or a user's own JSON Lines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

from stepverify.jsonl import read_records
from stepverify.readers.base import Fold, Reader, ReasonCounter, distinct, in_fold, same_steps, take
from stepverify.readers.released import ProblemFilter
from stepverify.records import InputError, Problem, Solution


class Problems(Reader):
    """Problems in the project's own format.

    Args:
        path: a ``.jsonl`` or ``.jsonl.gz`` file, or a folder of them.
        start: how many to skip.
        limit: how many to read at most.
        shuffle: seed of another order to read in; None keeps that of the file.
    """

    def __init__(self, path: str, start: int = 0, limit: int | None = None, shuffle: int | None = None) -> None:
        self.path, self.start, self.limit, self.shuffle = path, start, limit, shuffle

    def problems(self) -> Iterator[Problem]:
        """Yield the problems in the order of the file, or in that of ``shuffle``."""
        yield from take(read_records(self.path, Problem), self.start, self.limit, self.shuffle)


class Solutions(Reader):
    """Solutions in the project's own format: sampled, labelled or scored.

    Args:
        path: the output folder of a stage, or a file.
        fold: which part; problems are divided by a hash of their id, so no problem is in two folds.
        validation_fraction: share of the problems in the validation fold.
        limit: how many solutions to read at most.
        distinct: of the solutions of a problem that have the same steps, up to spaces, only the first one; the others
            are counted. Twins are told by a hash, 16 bytes for each distinct solution.
        balance: problems whose solutions are all correct or all incorrect: ``keep`` them, or ``drop`` them with a count.
            ``even`` drops them too and takes, of every other problem, as many correct solutions as incorrect ones, the first.
        max_solutions: the first so many of each problem, of those that the other choices leave; None takes all.
        correct_only: only solutions whose answer was graded correct (rejection sampling for SFT).
        steps_labelled_only: only solutions with step labels.
        exclude: solutions of problems that occur in one of these readers are left out.
        problems: the texts and answers of problems, by ``problem_id``, for lines that leave ``problem`` empty: files
            that do not repeat a text for each of its solutions, or may not carry it.
        logits: verifiers whose scores in the file are logits; their sigmoid is taken, and counted.

    Raises:
        InputError: an empty ``problem`` whose text is in no ``problems``.
    """

    def __init__(
        self, path: str, fold: Fold = "all", validation_fraction: float = 0.1, limit: int | None = None,
        correct_only: bool = False, steps_labelled_only: bool = False, max_solutions: int | None = None,
        balance: Literal["none", "mixed_only", "per_problem"] = "none", exclude: list[Reader] | None = None,
        distinct: bool = False, problems: Reader | None = None, logits: list[str] | None = None,
    ) -> None:  # fmt: skip
        if max_solutions is not None and max_solutions < 1:
            raise InputError(f"max_solutions: expected >= 1 or null, got {max_solutions}")
        self.path, self.fold, self.validation_fraction, self.limit = path, fold, validation_fraction, limit
        self.correct_only, self.steps_labelled_only = correct_only, steps_labelled_only
        self.max_solutions, self.balance, self.distinct = max_solutions, balance, distinct
        self.guard, self.texts, self.logits = ProblemFilter(exclude), problems, logits or []

    def solutions(self) -> Iterator[Solution]:
        """Yield the solutions in the order of the files."""
        self.left_out.clear()
        yield from take(self._chosen() if self.balance == "none" else self._mixed(), 0, self.limit)

    def _mixed(self) -> Iterator[Solution]:
        """Those of problems with a correct and an incorrect one, or evenly; read twice, so that memory stays small."""
        sides: dict[str, Counter[bool]] = {}
        for solution in self._chosen():
            sides.setdefault(solution.problem_id, Counter())[self._is_correct(solution)] += 1
        self.left_out.clear()
        taken = Counter[tuple[str, bool]]()
        for solution in self._chosen():
            counts, correct = sides[solution.problem_id], self._is_correct(solution)
            taken[solution.problem_id, correct] += 1
            this, other = ("correct", "incorrect") if correct else ("incorrect", "correct")
            if len(counts) < 2:
                self.left_out.note(f"of problems without a {other} solution", solution.id)
            elif self.balance == "per_problem" and taken[solution.problem_id, correct] > min(counts.values()):
                self.left_out.note(f"{this} beyond as many as its problem has {other} ones", solution.id)
            else:
                yield solution

    def _is_correct(self, solution: Solution) -> bool:
        if solution.correct is None:
            raise InputError(f"{self.path}: solution {solution.id} has no 'correct'; run sampling label on it first")
        return solution.correct

    def _chosen(self) -> Iterator[Solution]:
        taken, seen = Counter[str](), set[bytes]()
        for solution in self._complete():
            if not in_fold(solution.problem_id, self.fold, self.validation_fraction):
                continue
            if reason := self.guard.reason(solution.problem):
                self.left_out.note(reason, solution.id)
                continue
            if self.correct_only and not self._is_correct(solution):
                continue
            if self.steps_labelled_only and solution.step_labels is None:
                continue
            if self.distinct:
                steps = same_steps([solution.problem_id, *solution.steps])
                if steps in seen:
                    self.left_out.note("with the steps of an earlier one", solution.id)
                    continue
                seen.add(steps)
            taken[solution.problem_id] += 1
            if self.max_solutions is None or taken[solution.problem_id] <= self.max_solutions:
                yield solution

    @cached_property
    def _known(self) -> dict[str, Problem]:
        return {problem.id: problem for problem in self.texts.problems()} if self.texts else {}

    def _complete(self) -> Iterator[Solution]:
        self.noted.clear()
        logits = Logits(self.logits, self.noted)
        for solution in read_records(self.path, Solution, logits if self.logits else None):
            if not solution.problem:
                if (problem := self._known.get(solution.problem_id)) is None:
                    lacking = f"{type(self.texts).__name__} has no" if self.texts else "'problems' names no source of"
                    said = f"key 'problem' is empty, and {lacking} {solution.problem_id!r}"
                    raise InputError(f"{self.path}: solution {solution.id}: {said}")
                solution.problem, solution.answer = problem.problem, solution.answer or problem.answer
            yield solution
        logits.end(self.path)

    def problems(self) -> Iterator[Problem]:
        """Yield each problem that occurs in the solutions once."""
        self.left_out.clear()
        yield from distinct(self._chosen())


class Logits:
    """Takes the sigmoid of scores that are logits, in decoded lines.

    Args:
        names: the verifiers.
        noted: where it is counted.
    """

    def __init__(self, names: list[str], noted: ReasonCounter) -> None:
        self.names, self.noted = names, noted
        self._outside: set[str] = set()  # verifiers with a value that is no probability

    def __call__(self, where: str, data: Any) -> None:
        """Change one line in place."""
        for name in self.names:
            scores = data.get("scores", {}) if isinstance(data, dict) else {}
            if not isinstance(scores, dict):
                raise InputError(f"key 'scores': expected an object, got {scores!r:.80}")
            if name not in scores:
                raise InputError(f"logits: no scores by {name!r}; found {sorted(scores)}")
            if not isinstance(values := scores[name], list):
                raise InputError(f"key 'scores.{name}': expected a list, got {values!r:.80}")
            for i, value in enumerate(values):
                if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                    raise InputError(f"key 'scores.{name}[{i}]': expected a finite number, got {value!r:.80}")
                if not 0 <= value <= 1:
                    self._outside.add(name)
            scores[name] = [_sigmoid(value) for value in values]
            if values:
                self.noted.note(f"solutions whose scores by {name} were logits", where)

    def end(self, path: str) -> None:
        """Say which verifiers had no value but probabilities."""
        for name in self.names:
            if name not in self._outside:
                self.noted.note(f"warning: all scores by {name} were from 0 to 1 already: no logits?", path)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
