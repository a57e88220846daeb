"""Describe solutions for the browser: an entry for its list, and a body for when one is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any

from sampling.report.collect import Neutral, first_error
from stepverify.aggregate import Aggregation, vote_weight
from stepverify.data.targets import StepTargets
from stepverify.records import Solution, StepLabel

HALF = 0.5
_LONGEST = 200  # characters of a value of ``meta``


class Flag(IntFlag):
    """Name what is odd about a verifier's view of a solution.

    Attributes:
        CONFIDENT: the solution is incorrect, its score is 1/2 or more.
        DOUBTED: the solution is correct, its score is below 1/2.
        MISSED: the labelled first error is not the predicted one.
        FALSE_ALARM: an error is predicted, where all steps are labelled correct.
    """

    CONFIDENT = 1
    DOUBTED = 2
    MISSED = 4
    FALSE_ALARM = 8


@dataclass(slots=True)
class Seen:
    """Hold what the values of one verifier were found to be.

    Attributes:
        how: aggregation of its values.
        threshold: the first step with a value below it is the predicted first error.
        by_step: every solution had one value per step.
        many: some solution had more than one value.
    """

    how: Aggregation
    threshold: float
    by_step: bool = True
    many: bool = False

    @property
    def kind(self) -> str:
        """Return ``step``, ``token`` or ``outcome``, by what a value is of."""
        return ("step" if self.by_step else "token") if self.many else "outcome"


@dataclass(slots=True)
class Describer:
    """Describe solutions, and find out what their verifiers are.

    Attributes:
        used: verifier → aggregation; ``last`` if it is unknown.
        thresholds: verifier → threshold of first errors; 1/2 if it is unknown.
        neutral: what a step rated 0 counts as.
        verifiers: those of the solutions described so far.
    """

    used: Mapping[str, Aggregation] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    neutral: Neutral = "positive"
    verifiers: dict[str, Seen] = field(default_factory=dict)

    def entry(self, solution: Solution) -> dict[str, Any]:
        """Return what the list shows, sorts and filters by.

        ``error`` is the index of the labelled first error, -1 without one, None if it is unknown. ``judged`` holds for
        each verifier the score on the scale of probabilities (None without values), the index of the predicted first
        error (-1 without one, None without a value per step), and :class:`Flag`. ``spread`` is the largest difference
        between scores of two verifiers (None with fewer), ``disagree`` whether one score is 1/2 or more and one below.
        """
        solved = None if solution.correct is None else solution.solved
        error = None
        if solution.step_labels is not None:
            targets = StepTargets(neutral=self.neutral)(solution.step_labels)
            error = first_error([None if target is None else target == 1 for target in targets])
        judged = {name: self._judge(name, solution, solved, error) for name in solution.scores}
        scores = [score for score, _, _ in judged.values() if score is not None]
        return {
            "id": solution.id, "correct": solved, "predicted": solution.predicted, "steps": len(solution.steps),
            "tokens": None if solution.token_ids is None else len(solution.token_ids),
            "characters": len(solution.text), "finish": solution.finish, "error": error, "judged": judged,
            "spread": max(scores) - min(scores) if len(scores) > 1 else None,
            "disagree": bool(scores) and min(scores) < HALF <= max(scores),
        }  # fmt: skip

    def _judge(
        self, name: str, solution: Solution, solved: bool | None, error: int | None
    ) -> tuple[float | None, int | None, int]:
        values = solution.scores[name]
        if name not in self.verifiers:
            self.verifiers[name] = Seen(self.used.get(name, "last"), self.thresholds.get(name, HALF))
        seen = self.verifiers[name]
        by_step = len(values) == len(solution.steps)
        seen.by_step &= by_step or not values
        seen.many |= len(values) > 1
        if not values:
            return None, None, 0
        score = vote_weight(values, seen.how)
        predicted = next((i for i, v in enumerate(values) if v < seen.threshold), -1) if by_step else None
        flags = Flag(0)
        if solved is not None and solved != (score >= HALF):
            flags |= Flag.DOUBTED if solved else Flag.CONFIDENT
        if error is not None and predicted is not None and predicted != error:
            flags |= Flag.FALSE_ALARM if error < 0 else Flag.MISSED
        return score, predicted, int(flags)


def body(solution: Solution) -> dict[str, Any]:
    """Return what is shown of an opened solution; values are rounded to four decimals.

    Tokens are their joined text and their lengths in UTF-16, in which scripts count.
    """
    shown: dict[str, Any] = {
        "steps": solution.steps, "separator": solution.step_separator,
        "values": {name: [round(v, 4) for v in values] for name, values in solution.scores.items() if values},
    }  # fmt: skip
    if solution.step_labels is not None:
        shown["labels"] = [None if label is None else _label(label) for label in solution.step_labels]
    tokens = {
        name: ["".join(texts), [len(text.encode("utf-16-le", "surrogatepass")) // 2 for text in texts]]
        for name, texts in solution.token_texts.items()
        if len(texts) == len(solution.scores.get(name, ()))
    }
    facts = {
        "generator": solution.generator, "seed": None if solution.seed is None else str(solution.seed),
        "calculator edits": solution.num_calculator_edits or None, "timed out": solution.timed_out or None,
    } | {key: value for key, value in solution.meta.items() if _is_short(value)}  # fmt: skip
    facts = {key: value for key, value in facts.items() if value is not None}
    return shown | ({"tokens": tokens} if tokens else {}) | ({"facts": facts} if facts else {})


def _label(label: StepLabel) -> dict[str, float]:
    if label.rating is not None:
        return {"rating": label.rating}
    if label.value is not None:
        return {"value": round(label.value, 4)}
    assert label.num_correct is not None
    assert label.num_rollouts is not None
    return {"k": label.num_correct, "n": label.num_rollouts}


def _is_short(value: Any) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= _LONGEST)
