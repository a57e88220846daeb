r"""Read solutions with released step labels: select problems and steps, and count.

``math500.txt`` next to this file holds the :func:`digest` of the 500 problems on which PRM800K is tested (Lightman et
al. 2023, section 2.2), and no text. It was made from the file of that split by::

    python -c "from stepverify.readers import MATH; from stepverify.readers.released import digest; \
               print(*sorted(digest(p.problem) for p in MATH('test.jsonl').problems()), sep='\n')" > math500.txt
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Literal

from stepverify.readers.base import Fold, Reader, distinct, in_fold, lines, take
from stepverify.records import InputError, Problem, Solution, StepLabel

Choice = Literal["keep", "drop"]
Multiline = Literal["keep", "join", "split"]
Step = tuple[str, StepLabel | None]


def digest(problem: str) -> str:
    """Hash a problem's text to 64 bits, ignoring spaces and case.

    It is the start of SHA-256, and the same for all releases of the problem.
    """
    return hashlib.sha256("".join(problem.split()).casefold().encode()).hexdigest()[:16]


@cache
def math500() -> frozenset[str]:
    """Read the digests of the MATH-500 problems."""
    return frozenset(files(__package__).joinpath("math500.txt").read_text(encoding="utf-8").split())


class ProblemFilter:
    """Leave out problems by their text.

    Args:
        exclude: leave out problems that occur in one of these readers, whatever their ids.
        math500: also ``drop`` the problems of MATH-500.
    """

    def __init__(self, exclude: Sequence[Reader] | None, math500: Choice = "keep") -> None:
        self._exclude, self._math500 = exclude or (), math500

    @cached_property
    def _excluded(self) -> frozenset[str]:
        return frozenset(digest(problem.problem) for reader in self._exclude for problem in reader.problems())

    def reason(self, problem: str) -> str | None:
        """Return why a problem must be left out, or None."""
        if self._math500 == "drop" and digest(problem) in math500():
            return "of MATH-500 problems"
        return "of excluded problems" if self._exclude and digest(problem) in self._excluded else None


class Released(Reader):
    """Provide the base of readers of step-labelled solutions.

    Args:
        limit: number of solutions to read at most.
        exclude: leave out problems that occur in one of these readers.
        math500: ``drop`` or ``keep`` the problems of MATH-500, which are meant for evaluation.
        multiline: treatment of steps with several lines: ``keep`` them, with one step tag after all lines; ``join`` the
            lines with a space, so that a step is a line as in a sampled solution; or ``split`` them into steps, the
            last of which has the label.
        strict: refuse what is otherwise left out or noted for its form: empty steps, steps of several lines, rows of
            another format, problems without a text.
        fold: part of the problems; they are split by a hash of their id, so no problem is in two folds.
        validation_fraction: share of the problems in the validation fold.
    """

    def __init__(
        self, limit: int | None = None, exclude: list[Reader] | None = None, math500: Choice = "drop",
        multiline: Multiline = "keep", strict: bool = False, fold: Fold = "all", validation_fraction: float = 0.1,
    ) -> None:  # fmt: skip
        self.limit, self.multiline, self.strict = limit, multiline, strict
        self.fold, self.validation_fraction = fold, validation_fraction
        self.guard = ProblemFilter(exclude, math500)

    @abstractmethod
    def _found(self) -> Iterator[tuple[Problem, list[Step], dict[str, Any]]]:
        """Yield problem, labelled steps and further fields of every solution to use."""

    def problems(self) -> Iterator[Problem]:
        """Yield each problem that occurs in the solutions once."""
        yield from distinct(self.solutions())

    def solutions(self) -> Iterator[Solution]:
        """Yield the solutions in file order, numbered within their problems."""
        self.left_out.clear()
        self.noted.clear()
        yield from take(self._numbered(), 0, self.limit)

    def _numbered(self) -> Iterator[Solution]:
        numbers = Counter[str]()
        for problem, steps, known in self._found():
            if not in_fold(problem.id, self.fold, self.validation_fraction):
                continue
            labels = [label for _, label in steps]
            yield Solution.of(problem, numbers[problem.id], [text for text, _ in steps], step_labels=labels, **known)
            numbers[problem.id] += 1

    def _refused(self, where: str, problem: str) -> bool:
        """Check whether a problem must be left out, and count it."""
        if reason := self.guard.reason(problem):
            self.left_out.note(reason, where)
        return reason is not None

    def _steps(self, where: str, text: str, label: StepLabel | None) -> list[Step]:
        """Convert one released step to steps: none if it is empty."""
        text = text.strip()
        if not text:
            self._irregular("empty steps", where)
            return []
        if "\n" not in text:
            return [(text, label)]
        self._irregular("steps of several lines", where)
        if self.multiline == "keep":
            return [(text, label)]
        if self.multiline == "join":
            return [(" ".join(lines(text)), label)]
        *before, last = lines(text)
        return [*((line, None) for line in before), (last, label)]

    def _each(self, where: str, steps: Iterable[Step]) -> list[Step]:
        """Convert the released steps of a solution."""
        return [piece for i, step in enumerate(steps) for piece in self._steps(f"{where}: step {i}", *step)]

    def _on_path(self, where: str, text: str, label: StepLabel | None) -> list[Step]:
        """Convert a step of a path; count missing labels."""
        if label is None:
            self.noted.note("steps without a rating", where)
        return self._steps(where, text, label)

    def _path(self, where: str, steps: Iterable[Step]) -> list[Step]:
        """Convert steps up to the first incorrect one; count the rest."""
        path: list[Step] = []
        ended = False
        for number, (text, label) in enumerate(steps):
            here = f"{where}: step {number}"
            if ended:
                self.noted.note("steps after the end of their path", here)
                continue
            path += self._on_path(here, text, label)
            ended = is_incorrect(label)
        return path

    def _irregular(self, what: str, where: str) -> None:
        if self.strict:
            raise InputError(f"{where}: {what}, refused, as strict is set")
        self.noted.note(what, where)


def is_incorrect(label: StepLabel | None) -> bool:
    """Check whether a step was rated -1."""
    return label is not None and label.rating == -1


def valued(where: str, value: Any) -> StepLabel:
    """Make the label of a released probability that the step is correct.

    Raises:
        InputError: not a number from 0 to 1.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise InputError(f"{where}: expected a number from 0 to 1, got {value!r:.80}")
    return StepLabel(value=float(value))


def rated(where: str, rating: Any) -> StepLabel | None:
    """Make the label of a released rating; None for null.

    Raises:
        InputError: not -1, 0, 1 or null.
    """
    if rating is None:
        return None
    if type(rating) is not int or rating not in (-1, 0, 1):
        raise InputError(f"{where}: key 'rating': expected -1, 0, 1 or null, got {rating!r:.80}")
    return StepLabel(rating=rating)
