"""The record types that flow between stages; their files are in :mod:`stepverify.jsonl`. Imports nothing heavy.

A stage reads a folder of ``*.jsonl`` shards and writes another one::

    problems ─ generate ▶ solutions ─ label ▶ labelled solutions ─ score ▶ scored ─ rank ▶ rankings

Every problem is a :class:`Problem`; from sampling to scoring every line is a :class:`Solution`
that fills up on its way; ranking writes one :class:`Ranking` a problem, ``select`` a
:class:`RatingSheet` for each solution that people are to rate, whoever draws completions of step
prefixes keeps them as :class:`Rollout`, and whoever asks a judge keeps what it said as :class:`Judgement`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct, field


class InputError(ValueError):
    """Bad input by the user: one message with file, line, key and value. The programs exit with 2."""

    @classmethod
    def within(cls, error: BaseException | None) -> InputError | None:
        """The bad input after ``error``: the configuration parser wraps what a class raises in its own errors."""
        while error is not None and not isinstance(error, cls):
            error = error.__cause__ or error.__context__
        return error


class Problem(Struct, kw_only=True, forbid_unknown_fields=True):
    """A question, its final answer where it is known, and a worked solution where there is one."""

    id: str
    problem: str
    answer: str | None = None
    steps: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)


class StepLabel(Struct, kw_only=True, forbid_unknown_fields=True):
    """What is known of one step: a human rating, the count of a Monte Carlo estimate, or its value alone.

    Attributes:
        rating: 1 correct, 0 neutral, -1 incorrect (PRM800K's scale).
        num_correct: rollouts from the end of this step that reached the correct answer ...
        num_rollouts: ... out of so many (Math-Shepherd, section 3.3). Counts are kept, so that hard,
            soft and thresholded labels are choices of whoever reads them.
        value: probability in [0, 1] that the step is correct, where others released no counts but this.
    """

    rating: int | None = None
    num_correct: int | None = None
    num_rollouts: int | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        counted = self.num_correct is not None and self.num_rollouts is not None
        kinds = (self.rating is not None) + counted + (self.value is not None)
        if kinds != 1 or (self.num_correct is None) != (self.num_rollouts is None):
            raise InputError(f"a step label is a rating, or num_correct and num_rollouts, or a value, not {self}")
        if self.value is not None and not 0 <= self.value <= 1:
            raise InputError(f"value: expected 0 to 1, got {self.value!r}")
        if self.rating is not None and self.rating not in (-1, 0, 1):
            raise InputError(f"rating: expected -1, 0 or 1, got {self.rating!r}")
        if counted and not 0 <= self.num_correct <= self.num_rollouts >= 1:  # type: ignore[operator]
            raise InputError(f"num_correct: expected 0 to num_rollouts, got {self.num_correct} of {self.num_rollouts}")

    @property
    def share(self) -> float | None:
        """Chance that the step is correct, by rollouts or as released; None of a rating."""
        if self.num_correct is None or self.num_rollouts is None:
            return self.value
        return self.num_correct / self.num_rollouts


class Solution(Struct, kw_only=True, forbid_unknown_fields=True):
    """One solution of one problem, with all that is known of it so far.

    Attributes:
        id: problem id and sample index, ``gsm8k/test/7#3``.
        answer: the reference answer of the problem.
        steps: the lines of the solution, the final-answer line included.
        token_ids: the sampled tokens, exactly as the engine drew them.
        finish: ``stop`` (ended by itself) or ``length`` (cut off at the token limit).
        num_calculator_edits: values in it that the calculator put in; correct ones that were sampled do not count.
        predicted: the final answer that was extracted from the steps; None where there is none.
        correct: whether ``predicted`` equals ``answer``.
        step_labels: one entry a step; None where nothing is known of it.
        scores: verifier name → its values along the solution, in [0, 1]: one a step from a process
            reward model, one a token or the last one alone from an outcome verifier; none where it could not be read.
        token_texts: verifier name → the text of the token after each of its values, where they are values of tokens; some
            are empty, see :meth:`stepverify.data.encode.SolutionEncoder.token_texts`.
    """

    id: str
    problem_id: str
    problem: str
    steps: list[str]
    answer: str | None = None
    token_ids: list[int] | None = None
    finish: str | None = None
    seed: int | None = None
    generator: str | None = None
    num_calculator_edits: int = 0
    predicted: str | None = None
    correct: bool | None = None
    step_labels: list[StepLabel | None] | None = None
    scores: dict[str, list[float]] = field(default_factory=dict)
    token_texts: dict[str, list[str]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.finish not in (None, "stop", "length"):
            raise InputError(f"finish: expected 'stop' or 'length', got {self.finish!r}")
        if self.step_labels is not None and len(self.step_labels) != len(self.steps):
            raise InputError(
                f"step_labels: expected one for each of {len(self.steps)} steps, got {len(self.step_labels)}"
            )
        check_scores(self.scores, len(self.steps), self.token_texts)

    @property
    def solved(self) -> bool:
        """Whether it counts as correct: a correct final answer, reached before the token limit.

        Where neither answer is known, the verdict came with the solution (ProcessBench) and is taken as it is.
        """
        known = self.predicted is not None or self.answer is None
        return bool(self.correct) and known and self.finish != "length"

    @classmethod
    def of(cls, problem: Problem, index: int, steps: list[str], **known: Any) -> Solution:
        """The ``index``-th solution of ``problem``; ``meta`` goes to what the problem has."""
        return cls(
            id=f"{problem.id}#{index}", problem_id=problem.id, problem=problem.problem,
            answer=problem.answer, steps=steps, meta=problem.meta | known.pop("meta", {}), **known,
        )  # fmt: skip


class Ranking(Struct, kw_only=True, forbid_unknown_fields=True):
    """What every rule of choosing makes of the samples of one problem.

    Attributes:
        sizes: the numbers of samples N at which the curves are given.
        curves: rule (``majority``, ``prm/best_of_n``, ...) → the probability to be correct at each N, over
            random subsets of N of the samples.
        choices: rule → id of the solution that it picks from all samples; None where it picks none.
        auroc_by_rule: rule → area under the ROC curve of what it orders the samples by (votes, steps, a verifier's scores);
            empty where all samples are correct, or all incorrect.
    """

    problem_id: str
    num_samples: int
    sizes: list[int]
    curves: dict[str, list[float]]
    answer: str | None = None
    choices: dict[str, str | None] = field(default_factory=dict)
    auroc_by_rule: dict[str, float] = field(default_factory=dict)


class Rollout(Struct, kw_only=True, forbid_unknown_fields=True):
    """Completions of one step prefix, sampled together to learn what the prefix is worth.

    Attributes:
        id: the problem's id, a digest of the prefix, and which of its completions the first one is.
        steps: the prefix.
        seed: that the first completion was sampled with; the next one with ``seed + 1``.
        completions: the texts after the prefix.
        finish: as of a :class:`Solution`, for each of them.
        answers: their final answers; None where there is none.
        correct: whether that is the problem's answer.
        tokens: sampled for all of them.
    """

    id: str
    problem_id: str
    steps: list[str]
    seed: int
    completions: list[str]
    finish: list[str]
    answers: list[str | None]
    correct: list[bool]
    tokens: int


class RatingSheet(Struct, kw_only=True, forbid_unknown_fields=True):
    """A solution as it is laid before people who rate its steps.

    Attributes:
        ratings: one entry a step, on PRM800K's scale: 1 correct, 0 neutral, -1 incorrect; None where nobody has rated it.
        answer: the reference answer of the problem.
        scores: what a verifier says of the steps; empty unless it was asked for, since it would prime who rates.
        meta: remarks of whoever rates.
    """

    id: str
    problem_id: str
    problem: str
    answer: str | None = None
    steps: list[str]
    ratings: list[int | None]
    scores: list[float] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.ratings) != len(self.steps):
            raise InputError(f"ratings: expected one for each of {len(self.steps)} steps, got {len(self.ratings)}")
        for i, rating in enumerate(self.ratings):
            if rating not in (-1, 0, 1, None):
                raise InputError(f"key 'ratings[{i}]': expected -1, 0, 1 or null, got {rating!r}")

    @property
    def rated(self) -> bool:
        """Whether anybody has rated any of its steps."""
        return any(rating is not None for rating in self.ratings)


class Judgement(Struct, kw_only=True, forbid_unknown_fields=True):
    """What a judge said about the first incorrect step of one solution. Steps are counted from 1; 0 is none of them.

    Attributes:
        id: of the solution.
        labelled: the first incorrect step by the labels that were judged.
        seed: that the first answer was sampled with; the next one with ``seed + 1``.
        texts: the judge's answers, one a vote.
        finish: as of a :class:`Solution`, for each of them.
        verdicts: the first incorrect step that each of them names; None where it names none of the solution's, nor none.
        tokens: sampled for all of them.
    """

    id: str
    labelled: int
    seed: int
    texts: list[str]
    finish: list[str]
    verdicts: list[int | None]
    tokens: int


def check_scores(
    scores: Mapping[str, Sequence[float]], num_steps: int, token_texts: Mapping[str, Sequence[str]], key: str = "scores"
) -> None:
    """Check that scores of a solution are probabilities, and their number.

    Args:
        scores: verifier → its values.
        num_steps: of the solution.
        token_texts: verifier → the texts of its values, where they are values of tokens.
        key: of the scores in messages.

    Raises:
        InputError: a value outside [0, 1], or more values than one and fewer than steps, or not one a text.
    """
    for name, values in scores.items():
        if not values:
            continue
        if not (min(values) >= 0 and max(values) <= 1) or math.isnan(sum(values)):
            at = next(i for i, value in enumerate(values) if not 0 <= value <= 1)
            raise InputError(
                f"key '{key}.{name}[{at}]': expected a probability from 0 to 1, got {values[at]!r}; logits are turned "
                f"into probabilities by `sampling convert --logits '[{name}]'` or by `logits` of the reader Solutions"
            )
        if 1 < len(values) < num_steps:
            raise InputError(
                f"key '{key}.{name}': expected one value a step ({num_steps}), one a token, or the last one alone, "
                f"got {len(values)}"
            )
        if name in token_texts and len(token_texts[name]) != len(values):
            raise InputError(
                f"key 'token_texts.{name}': expected {len(values)} texts, one a value, got {len(token_texts[name])}"
            )


def record_key(record: Any) -> str:
    """Give a record's key in its folder: its id, or its problem's."""
    return str(getattr(record, "id", None) or record.problem_id)


AnyRecord = Problem | Solution | Ranking | Rollout | RatingSheet | Judgement
Record = TypeVar("Record", Problem, Solution, Ranking, Rollout, RatingSheet, Judgement)
