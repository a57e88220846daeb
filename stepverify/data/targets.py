"""Convert step labels to training targets when the labels are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stepverify.records import InputError, Solution, StepLabel

NEUTRAL = 2.0  # target of a neutral step as a class of its own; other targets are probabilities


@dataclass(frozen=True, kw_only=True)
class StepTargets:
    """Convert step labels to probabilities of being correct.

    Attributes:
        monte_carlo: ``hard`` is 1 if any rollout was correct, ``soft`` the share of correct rollouts (Math-Shepherd,
            equations 3 and 4), ``threshold`` is 1 if the share is above ``threshold``. A released value counts as a
            share.
        threshold: for ``monte_carlo: threshold``; a share in [0, 1).
        neutral: target of a rating of 0 (``positive`` in Let's Verify); ``class`` keeps it as a third class besides
            correct and incorrect, for templates with a ``neutral`` token.
        after_first_error: targets of steps after the first incorrect one: none (``ignore``, supervision up to the first
            error as in Let's Verify, section 2.6), incorrect (``negative``), or as labelled (``keep``).
    """

    monte_carlo: Literal["hard", "soft", "threshold"] = "hard"
    threshold: float = 0.5
    neutral: Literal["positive", "negative", "ignore", "class"] = "positive"
    after_first_error: Literal["ignore", "negative", "keep"] = "keep"

    def of(self, record: Solution) -> list[float | None]:
        """Return the targets of a solution's steps.

        Raises:
            InputError: it has no step labels.
        """
        if record.step_labels is None:
            raise InputError(
                f"solution {record.id}: no step labels ('step_labels'); run sampling label with a steps labeller first"
            )
        return self(record.step_labels)

    def __call__(self, labels: Sequence[StepLabel | None]) -> list[float | None]:
        """Convert each label to a target.

        A target is in [0, 1], ``NEUTRAL``, or None for a step to ignore.
        """
        targets = [self._target(label) for label in labels]
        incorrect = next((i for i, target in enumerate(targets) if target == 0), None)
        if incorrect is not None and self.after_first_error != "keep":
            rest = 0.0 if self.after_first_error == "negative" else None
            targets[incorrect + 1 :] = [rest] * (len(targets) - incorrect - 1)
        return targets

    def _target(self, label: StepLabel | None) -> float | None:
        if label is None:
            return None
        if label.rating is not None:
            if label.rating == 0:
                return {"positive": 1.0, "negative": 0.0, "ignore": None, "class": NEUTRAL}[self.neutral]
            return float(label.rating > 0)
        share = label.share
        assert share is not None
        if self.monte_carlo == "soft":
            return share
        return float(share > (self.threshold if self.monte_carlo == "threshold" else 0.0))
