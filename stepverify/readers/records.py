"""Read the project's own records, from stages or users."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Literal

from stepverify.jsonl import read_records
from stepverify.readers.base import Fold, Reader, ReasonCounter, distinct, in_fold, same_steps, take
from stepverify.readers.own import problem_columns, read_problems, read_solutions, solution_columns
from stepverify.readers.released import ProblemFilter
from stepverify.readers.tables import is_records, rows
from stepverify.records import InputError, Problem, Solution


class Problems(Reader):
    """Read problems in the project's own format, or of a table with columns of your own.

    Of a table (``columns`` given, or another format than JSON Lines), columns that are no fields are not read, ``id``
    may be missing (it is then made of the text), ``answer`` may be a number, and ``steps`` a text of lines.

    Args:
        path: a ``.jsonl`` file or a folder of them; a JSON array, CSV or Parquet file; ``.gz`` too; or a Hub dataset.
        columns: their column → our field, ``{question: problem, gold: answer, level: meta.level}``.
        split: split of a Hub dataset.
        name: configuration of a Hub dataset, if it has several.
        revision: branch, tag or commit of a Hub dataset.
        start: number of problems to skip.
        limit: number of problems to read at most.
        shuffle: seed to shuffle the problems; None keeps the order of the file.
    """

    def __init__(
        self, path: str, start: int = 0, limit: int | None = None, shuffle: int | None = None,
        columns: dict[str, str] | None = None, split: str = "train", name: str | None = None,
        revision: str | None = None,
    ) -> None:  # fmt: skip
        self.path, self.start, self.limit, self.shuffle = path, start, limit, shuffle
        self.columns, self.split, self.name, self.revision = columns, split, name, revision
        self._fields = problem_columns(columns)

    def problems(self) -> Iterator[Problem]:
        """Yield the problems in the order of the file, or shuffled."""
        self.noted.clear()
        if self.columns is None and is_records(self.path):
            found = read_records(self.path, Problem)
        else:
            table = rows(self.path, self.split, self.name, self.revision)
            found = read_problems(table, self._fields, self.noted)
        yield from take(found, self.start, self.limit, self.shuffle)


class Solutions(Reader):
    """Read solutions in the project's own format, or of a table with columns of your own.

    They may be sampled, labelled or scored. Of a table (as for :class:`Problems`), ``id`` and ``problem_id`` may be
    missing, ``correct`` may be 0 or 1, and ``step_labels`` a list of true and false or of probabilities.

    Args:
        path: output folder of a stage, or a ``.jsonl`` file; a JSON array, CSV or Parquet file; or a Hub dataset.
        fold: part of the problems; they are split by a hash of their id, so no problem is in two folds.
        validation_fraction: share of the problems in the validation fold.
        limit: number of solutions to read at most.
        distinct: keep only the first of the solutions of a problem with the same steps, up to spaces; the others are
            counted. Needs a hash of 16 bytes per distinct solution.
        balance: ``none`` takes all solutions; ``mixed_only`` leaves out, with a count, problems whose solutions are all
            correct or all incorrect; ``per_problem`` also does that, and takes as many correct solutions as incorrect
            ones of every other problem, the first.
        max_solutions: largest number of solutions per problem, the first ones left by the other settings; None takes
            all.
        correct_only: only solutions with a correct final answer (rejection sampling for SFT).
        min_score: verifier → smallest score; solutions with a lower value at any step are left out, with a count.
        steps_labelled_only: only solutions with step labels.
        exclude: leave out solutions of problems that occur in one of these readers.
        problems: reader of problem texts and answers by ``problem_id``, for lines whose ``problem`` is empty: files
            that do not repeat the text for each solution, or may not distribute it.
        logits: verifiers whose scores in the file are logits; their sigmoid is taken, and counted.
        columns: their column → our field, ``{question: problem, response: steps, reward: scores.prm}``.
        split: split of a Hub dataset.
        name: configuration of a Hub dataset, if it has several.
        revision: branch, tag or commit of a Hub dataset.

    Raises:
        InputError: an empty ``problem`` whose text is not in ``problems``.
    """

    def __init__(
        self, path: str, fold: Fold = "all", validation_fraction: float = 0.1, limit: int | None = None,
        correct_only: bool = False, steps_labelled_only: bool = False, max_solutions: int | None = None,
        balance: Literal["none", "mixed_only", "per_problem"] = "none", exclude: list[Reader] | None = None,
        distinct: bool = False, problems: Reader | None = None, logits: list[str] | None = None,
        columns: dict[str, str] | None = None, split: str = "train", name: str | None = None,
        revision: str | None = None, min_score: dict[str, float] | None = None,
    ) -> None:  # fmt: skip
        if max_solutions is not None and max_solutions < 1:
            raise InputError(f"max_solutions: expected >= 1 or null, got {max_solutions}")
        self.min_score = min_score or {}
        self.path, self.fold, self.validation_fraction, self.limit = path, fold, validation_fraction, limit
        self.correct_only, self.steps_labelled_only = correct_only, steps_labelled_only
        self.max_solutions, self.balance, self.distinct = max_solutions, balance, distinct
        self.guard, self.texts, self.logits = ProblemFilter(exclude), problems, logits or []
        self.columns, self.split, self.name, self.revision = columns, split, name, revision
        self._fields = solution_columns(columns, problems is not None)

    def solutions(self) -> Iterator[Solution]:
        """Yield the solutions in the order of the files."""
        self.left_out.clear()
        yield from take(self._chosen() if self.balance == "none" else self._mixed(), 0, self.limit)

    def _mixed(self) -> Iterator[Solution]:
        """Yield solutions of problems with correct and incorrect ones, balanced if configured.

        The file is read twice, to save memory.
        """
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
                self.left_out.note(f"of problems without {'an' if correct else 'a'} {other} solution", solution.id)
            elif self.balance == "per_problem" and taken[solution.problem_id, correct] > min(counts.values()):
                self.left_out.note(f"{this} beyond the number of {other} ones of their problem", solution.id)
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
            if reason := self._too_low(solution):
                self.left_out.note(reason, solution.id)
                continue
            if self.steps_labelled_only and solution.step_labels is None:
                continue
            if self.distinct:
                steps = same_steps([solution.problem_id, *solution.steps])
                if steps in seen:
                    self.left_out.note("with the same steps as an earlier one", solution.id)
                    continue
                seen.add(steps)
            taken[solution.problem_id] += 1
            if self.max_solutions is None or taken[solution.problem_id] <= self.max_solutions:
                yield solution

    def _too_low(self, solution: Solution) -> str | None:
        """Return why a solution has no score that is high enough."""
        for name, bound in self.min_score.items():
            if (values := solution.scores.get(name)) is None:
                said = f"no scores by {name!r}; found {sorted(solution.scores)}"
                raise InputError(f"{self.path}: solution {solution.id}: min_score: {said}")
            if not values:
                return f"that {name} did not score, as too long"
            if min(values) < bound:
                return f"with a score by {name} below {bound:g}"
        return None

    @cached_property
    def _known(self) -> dict[str, Problem]:
        return {problem.id: problem for problem in self.texts.problems()} if self.texts else {}

    def _complete(self) -> Iterator[Solution]:
        self.noted.clear()
        logits = Logits(self.logits, self.noted)
        for solution in self._read(logits if self.logits else None):
            if not solution.problem:
                if (problem := self._known.get(solution.problem_id)) is None:
                    lacking = f"{type(self.texts).__name__} has no" if self.texts else "'problems' names no source of"
                    said = f"key 'problem' is empty, and {lacking} {solution.problem_id!r}"
                    raise InputError(f"{self.path}: solution {solution.id}: {said}")
                solution.problem, solution.answer = problem.problem, solution.answer or problem.answer
            yield solution
        logits.end(self.path)

    def _read(self, change: Callable[[str, Any], None] | None) -> Iterator[Solution]:
        if self.columns is None and is_records(self.path):
            return read_records(self.path, Solution, change)
        table = rows(self.path, self.split, self.name, self.revision)
        return read_solutions(table, self._fields, self.noted, change)

    def problems(self) -> Iterator[Problem]:
        """Yield each problem that occurs in the solutions once."""
        self.left_out.clear()
        yield from distinct(self._chosen())


class Logits:
    """Convert scores that are logits to probabilities, in decoded lines.

    Args:
        names: verifiers to convert.
        noted: counter of converted solutions.
    """

    def __init__(self, names: list[str], noted: ReasonCounter) -> None:
        self.names, self.noted = names, noted
        self._outside: set[str] = set()  # verifiers with a value outside [0, 1]

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
        """Note verifiers whose values were all probabilities already."""
        for name in self.names:
            if name not in self._outside:
                self.noted.note(f"warning: all scores by {name} were from 0 to 1 already: no logits?", path)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
