"""Everything that a report says, as numbers: what statistics give, sections show and ``summary.json`` holds.

Shares, accuracies and probabilities are in [0, 1]; a value that is not defined is None. Intervals are at 95 %.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from stepverify.aggregate import Aggregation
from stepverify.statistics import Bin


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A bootstrap interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate(Interval):
    """A value with its interval."""

    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint(Estimate):
    """Accuracy when a rule may choose among ``n`` samples."""

    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference(Interval):
    """A difference of two values, with its interval over the same resamples of both."""

    difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference(Difference):
    """How far a rule's accuracy is above that of the rule ``versus``."""

    versus: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared(Estimate):
    """Accuracy of a rule under one aggregation, and its difference from the majority vote where there is one."""

    paired: PairedDifference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenAggregation:
    """How a verifier's values become a score, and where that comes from."""

    how: Aggregation
    chosen_on: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Best-of-``n`` on other problems: verifier → aggregation → accuracy."""

    num_problems: int
    n: int
    best_of_n: dict[str, dict[str, float]]
    fewer_samples: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """What rankings say.

    Attributes:
        num_samples: the largest N; ``accuracy`` is at that N.
        num_solutions: of all problems together.
        auroc_per_problem: rule → mean AUROC of what it orders the samples of a problem by.
        paired: rule → difference from the majority vote (of the majority vote from pass@1).
        every_aggregation: rule → aggregation → accuracy, where it was asked for.
        aggregation: verifier → the aggregation in use.
        validation: what aggregations were chosen by, if they were.
    """

    num_problems: int
    num_samples: int
    num_solutions: int
    sizes: list[int]
    accuracy: dict[str, Estimate]
    auroc_per_problem: dict[str, float]
    paired: dict[str, PairedDifference]
    every_aggregation: dict[str, dict[str, Compared]]
    curves: dict[str, list[CurvePoint]]
    aggregation: dict[str, ChosenAggregation] = field(default_factory=dict)
    validation: Validation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOrder:
    """The interval of a verifier's AUROC of steps, and how far that is above place, length and other verifiers'."""

    interval: Interval | None
    above: dict[str, Difference]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepQuality:
    """How good values of steps are, beside what place and length alone tell.

    Attributes:
        accuracy: of judging a step correct at 1/2 or more.
        f1_error: of finding the incorrect steps; ``f1_all_incorrect`` of calling all of them incorrect.
    """

    num_steps: int
    base_rate: float
    accuracy: float
    auroc: float | None
    auroc_position: float | None
    auroc_length: float | None
    f1_error: float
    f1_all_incorrect: float
    ece: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierSteps(StepQuality):
    """The quality of one verifier's values of all labelled steps, and of each subset where there are several."""

    subsets: dict[str, StepQuality]
    reliability: list[Bin]
    order: StepOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthCorrelations:
    """Correlations with the number of steps and of tokens."""

    spearman_steps: float | None
    pearson_steps: float | None
    spearman_tokens: float | None
    pearson_tokens: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrimination:
    """AUROC over all solutions, and the mean of those within each problem."""

    auroc: float | None
    auroc_per_problem: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreQuality(LengthCorrelations):
    """How good scores of solutions are under one aggregation."""

    auroc: float | None
    auroc_per_problem: float | None
    brier: float
    ece: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MinimumPosition:
    """Where the lowest value of a solution stands, from 0 (first) to 1 (last), on average; how often at the ends."""

    mean: float | None
    at_first: float | None
    at_last: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierSolutions:
    """The quality of one verifier's scores of graded solutions.

    Attributes:
        used: the aggregation that ``reliability`` is of.
        shortest: what taking the shorter solution for the correct one would give.
        truth: how far correct answers themselves go with length: what a perfect verifier would show.
        minimum_position: of verifiers with several values a solution.
    """

    num_solutions: int
    base_rate: float
    used: str
    aggregations: dict[str, ScoreQuality]
    shortest: Discrimination
    truth: LengthCorrelations
    minimum_position: MinimumPosition | None
    reliability: list[Bin]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstErrorRates:
    """Accuracy on solutions with an error and without, and its harmonic mean, at one threshold."""

    threshold: float
    erroneous_accuracy: Estimate | None
    correct_accuracy: Estimate | None
    f1: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LowestValue:
    """How often the lowest value is at the first error; places are from 0 (first step) to 1 (last)."""

    at_first_error: float | None
    place_incorrect: float | None
    place_first_error: float | None
    place_correct: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstErrorQuality:
    """How well first errors are found: at the threshold 1/2, and at the one that was chosen, if one was."""

    num_incorrect: int
    num_correct: int
    half: FirstErrorRates
    chosen: FirstErrorRates | None
    lowest: LowestValue


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanF1:
    """F1 as a mean over subsets, each weighing the same."""

    half: Estimate | None
    chosen: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierFirstErrors:
    """How well one verifier finds first errors.

    Attributes:
        num_unread: solutions that it could not read whole; they count as judged incorrectly.
        chosen_on: the subset that a threshold was chosen on.
        subsets: empty where there is but one, and ``mean`` is None then.
    """

    num_unread: int
    chosen_on: str | None
    subsets: dict[str, FirstErrorQuality]
    all: FirstErrorQuality
    mean: MeanF1 | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A whole report. Parts that were not asked for, or that nothing is known of, are None or empty."""

    accuracy: Accuracy | None = None
    steps: dict[str, VerifierSteps] | None = None
    solutions: dict[str, VerifierSolutions] | None = None
    first_errors: dict[str, VerifierFirstErrors] | None = None
    config: dict[str, str | int | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Give the summary as JSON values: what rankings say stands at the top, parts without content are left out."""
        whole = asdict(self)
        parts = {key: value for key, value in whole.items() if value is not None and key != "accuracy"}
        if not parts["warnings"]:
            del parts["warnings"]
        return (whole["accuracy"] or {}) | parts
