"""Define the record types that stages exchange. Imports nothing heavy.

A stage reads a folder of ``*.jsonl`` shards (:mod:`stepverify.jsonl`) and writes another one::

    problems ─ generate ▶ solutions ─ label ▶ labelled solutions ─ score ▶ scored ─ rank ▶ rankings

Every problem is a :class:`Problem`. From sampling to scoring every line is a :class:`Solution`, to which each stage
adds fields. Ranking writes one :class:`Ranking` per problem, ``select`` one :class:`RatingSheet` per solution to be
rated by people. Completions of step prefixes are stored as :class:`Rollout`, the answers of a judge as
:class:`Judgement`.
"""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec import Struct, field

from stepverify.critique import Critique
from stepverify.errors import InputError as InputError  # noqa: PLC0414 - what all others import from here
from stepverify.record_checks import check_finish, check_length, check_scores


class Problem(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold a problem, with its final answer and worked solution if known."""

    id: str
    problem: str
    answer: str | None = None
    steps: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)


class StepLabel(Struct, kw_only=True, forbid_unknown_fields=True):
    """Label a step by a rating, Monte Carlo counts, or a value.

    Attributes:
        rating: 1 correct, 0 neutral, -1 incorrect (PRM800K's scale).
        num_correct: rollouts from the end of this step that reached the correct answer.
        num_rollouts: all rollouts from the end of this step (Math-Shepherd, section 3.3). Counts are kept, so that
            hard, soft or thresholded labels are chosen when they are read.
        value: probability in [0, 1] that the step is correct, for released labels without counts.
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
        """Return the probability that the step is correct; None for a rating."""
        if self.num_correct is None or self.num_rollouts is None:
            return self.value
        return self.num_correct / self.num_rollouts


class Solution(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold one solution of a problem, with all that is known.

    Attributes:
        id: problem id and sample index, ``gsm8k/test/7#3``.
        answer: reference answer of the problem.
        steps: steps, the one with the final answer included; each may hold several lines.
        step_separator: text between two steps.
        token_ids: sampled tokens, exactly as the engine sampled them.
        finish: ``stop`` (ended by itself) or ``length`` (cut off at the token limit).
        num_calculator_edits: values that the calculator inserted; values that were sampled correctly do not count.
        predicted: final answer extracted from the steps; None if there is none, or if that took too long.
        correct: outcome label: whether ``predicted`` equals ``answer``.
        timed_out: extracting ``predicted``, or comparing the two, took longer than the time limit; the solution then
            counts as incorrect.
        step_labels: one entry per step; None for unlabelled steps.
        scores: verifier name → its values along the solution, in [0, 1]: one per step from a process reward model, one
            per token or the final one alone from an outcome verifier; empty if the solution could not be scored.
        token_texts: verifier name → text of the token before each of its values, for token scores; some are empty, see
            :meth:`stepverify.data.encode.SolutionEncoder.token_texts`.
        critiques: verifier name → what a generative verifier wrote, in the order of the steps.
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
    step_separator: str = "\n"
    predicted: str | None = None
    correct: bool | None = None
    timed_out: bool = False
    step_labels: list[StepLabel | None] | None = None
    scores: dict[str, list[float]] = field(default_factory=dict)
    token_texts: dict[str, list[str]] = field(default_factory=dict)
    critiques: dict[str, list[Critique]] = field(default_factory=dict)
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
    def text(self) -> str:
        """Return the joined steps."""
        return self.step_separator.join(self.steps)

    @property
    def solved(self) -> bool:
        """Check whether it counts as correct.

        It needs a correct final answer before the token limit. If neither answer is known, the outcome label came with
        the solution (ProcessBench) and is used as it is.
        """
        known = self.predicted is not None or self.answer is None
        return bool(self.correct) and known and self.finish != "length"

    @classmethod
    def of(cls, problem: Problem, index: int, steps: list[str], **known: Any) -> Solution:
        """Make the ``index``-th solution of ``problem``; ``meta`` extends the problem's."""
        return cls(
            id=f"{problem.id}#{index}", problem_id=problem.id, problem=problem.problem,
            answer=problem.answer, steps=steps, meta=problem.meta | known.pop("meta", {}), **known,
        )  # fmt: skip


class Ranking(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold the results of all selection rules for one problem.

    Attributes:
        sizes: numbers of samples N at which the curves are given.
        curves: rule (``majority``, ``prm/best_of_n``, ...) → probability of being correct at each N, over random
            subsets of N samples.
        choices: rule → id of the solution selected from all samples; None if it selects none.
        auroc_by_rule: rule → AUROC of the quantity that orders the samples (votes, steps, a verifier's scores); empty
            if all samples are correct, or all incorrect.
        num_timeouts: readings and comparisons of answers that took too long; such answers count as not equal.
    """

    problem_id: str
    num_samples: int
    sizes: list[int]
    curves: dict[str, list[float]]
    answer: str | None = None
    choices: dict[str, str | None] = field(default_factory=dict)
    auroc_by_rule: dict[str, float] = field(default_factory=dict)
    num_timeouts: int = 0

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_timeouts"):
            if (number := getattr(self, name)) < 0:
                raise InputError(f"{name}: expected 0 or more, got {number}")
        if not self.sizes or [*self.sizes] != sorted({*self.sizes}) or not 1 <= self.sizes[0] <= self.sizes[-1] < 2**31:
            raise InputError(f"sizes: expected ascending numbers of samples of 1 or more, got {self.sizes!r:.80}")
        for rule, curve in self.curves.items():
            check_length(f"curves.{rule}", len(curve), len(self.sizes), "one per size")
        shares = [(f"curves.{rule}", value) for rule, curve in self.curves.items() for value in curve]
        for key, value in (*shares, *((f"auroc_by_rule.{rule}", area) for rule, area in self.auroc_by_rule.items())):
            if not -1e-9 <= value <= 1 + 1e-9:  # sums of shares may be rounded
                raise InputError(f"key '{key}': expected numbers from 0 to 1, got {value!r}")


class Rollout(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold completions of one step prefix, sampled to estimate its value.

    Attributes:
        id: problem id, digest of the prefix, and index of the first completion.
        steps: the prefix.
        seed: seed of the first completion; the next ones have ``seed + 1`` and so on.
        completions: texts after the prefix.
        finish: as in :class:`Solution`, for each completion.
        answers: final answer of each completion; None if there is none, or if extracting it took too long.
        correct: whether each answer is the problem's.
        tokens: number of tokens sampled for all of them.
        timed_out: indices of the completions of which the answer was not extracted or compared within the time limit;
            they count as incorrect.
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
    timed_out: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for key, values in (("finish", self.finish), ("answers", self.answers), ("correct", self.correct)):
            check_length(key, len(values), len(self.completions), "one per completion")
        check_finish(self.finish)
        if any(not 0 <= i < len(self.completions) for i in self.timed_out):
            raise InputError(f"key 'timed_out': expected indices of completions, got {self.timed_out}")


class RatingSheet(Struct, kw_only=True, forbid_unknown_fields=True):
    """Present a solution to people who rate its steps.

    Attributes:
        ratings: one per step, on PRM800K's scale: 1 correct, 0 neutral, -1 incorrect; None if not rated yet.
        answer: reference answer of the problem.
        scores: step scores of a verifier; empty unless requested, since they would bias the raters.
        meta: remarks of the raters.
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
        """Check whether any step has a rating."""
        return any(rating is not None for rating in self.ratings)


class Judgement(Struct, kw_only=True, forbid_unknown_fields=True):
    """Hold a judge's answers about the first incorrect step of one solution.

    Steps are counted from 1; 0 means that no step is incorrect.

    Attributes:
        id: id of the solution.
        labelled: first incorrect step by the labels under judgement.
        seed: seed of the first answer; the next ones have ``seed + 1`` and so on.
        texts: answers of the judge, one per vote.
        finish: as in :class:`Solution`, for each answer, or ``refused`` where a server refused the question.
        verdicts: first incorrect step that each answer names; None if it names no step of the solution.
        tokens: number of tokens sampled for all of them.
    """

    id: str
    labelled: int
    seed: int
    texts: list[str]
    finish: list[str]
    verdicts: list[int | None]
    tokens: int

    def __post_init__(self) -> None:
        for key, values in (("finish", self.finish), ("verdicts", self.verdicts)):
            check_length(key, len(values), len(self.texts), "one per text")
        check_finish(self.finish, ("stop", "length", "refused"))


def record_key(record: Any) -> str:
    """Return a record's key within its folder.

    It is its id, or that of its problem.
    """
    return str(getattr(record, "id", None) or record.problem_id)


Record = TypeVar("Record", bound=Struct)
