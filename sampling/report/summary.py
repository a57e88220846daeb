"""Hold the figures of a report, which sections show and ``summary.json`` stores.

Shares, accuracies and probabilities are in [0, 1]; an undefined value is None. Intervals are at 95 %.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from stepverify.aggregate import Aggregation
from stepverify.statistics import Bin

if TYPE_CHECKING:
    from sampling.report.budget_summary import Budgets
    from sampling.report.first_error_summary import VerifierFirstErrors


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Hold a bootstrap interval, and the standard deviation of the resamples."""

    low: float
    high: float
    standard_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate(Interval):
    """Hold a value with its interval."""

    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint(Estimate):
    """Hold the accuracy of a rule that chooses among ``n`` samples."""

    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference(Interval):
    """Hold a difference and its interval over the same resamples."""

    difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference(Difference):
    """Hold a rule's accuracy minus that of the rule ``versus``."""

    versus: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared(Estimate):
    """Hold a rule's accuracy under one aggregation, paired with the majority vote."""

    paired: PairedDifference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenAggregation:
    """Hold how a verifier's values become a score, and who chose that.

    ``chosen_on`` is ``configured``, ``calibration``, ``validation`` or ``default``.
    """

    how: Aggregation | Literal["learned"]
    chosen_on: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Hold the validation of aggregations by best-of-``n`` on other problems.

    ``best_of_n``: verifier → aggregation → accuracy.
    """

    num_problems: int
    n: int
    best_of_n: dict[str, dict[str, float]]
    fewer_samples: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Hold the accuracies that were computed from rankings.

    Attributes:
        num_samples: the largest N; ``accuracy`` is at this N.
        num_solutions: number of solutions of all problems together.
        auroc_per_problem: rule → mean AUROC of the values by which it orders the samples of a problem.
        paired: rule → difference from the majority vote (for the majority vote itself: from pass@1).
        between: rule with a verifier → every later such rule → difference of the first from it; empty with one
            verifier.
        every_aggregation: rule → aggregation → accuracy, if it was requested.
        aggregation: verifier → the aggregation in use.
        validation: how aggregations were chosen on validation problems, if they were.
    """

    num_problems: int
    num_samples: int
    num_solutions: int
    sizes: list[int]
    accuracy: dict[str, Estimate]
    auroc_per_problem: dict[str, float]
    paired: dict[str, PairedDifference]
    between: dict[str, dict[str, Difference]]
    every_aggregation: dict[str, dict[str, Compared]]
    curves: dict[str, list[CurvePoint]]
    aggregation: dict[str, ChosenAggregation] = field(default_factory=dict)
    validation: Validation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOrder:
    """Hold the interval of a verifier's step AUROC, and its differences.

    ``above``: the differences from place alone, length alone and other verifiers.
    """

    interval: Interval | None
    above: dict[str, Difference]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepQuality:
    """Hold the quality of step values, and of place and length alone.

    Attributes:
        accuracy: accuracy of calling a step correct at 1/2 or more.
        auroc_position: AUROC of the place in the solution alone.
        auroc_length: AUROC of the length in characters alone.
        f1_error: F1 of finding the incorrect steps; ``f1_all_incorrect`` is that of calling all steps incorrect.
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
    """Hold the quality of one verifier's step values, also by subset."""

    subsets: dict[str, StepQuality]
    reliability: list[Bin]
    order: StepOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthCorrelations:
    """Hold correlations with the number of steps and of tokens."""

    spearman_steps: float | None
    pearson_steps: float | None
    spearman_tokens: float | None
    pearson_tokens: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrimination:
    """Hold AUROC over all solutions, and its mean within problems."""

    auroc: float | None
    auroc_per_problem: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreQuality(LengthCorrelations):
    """Hold the quality of solution scores under one aggregation."""

    auroc: float | None
    auroc_per_problem: float | None
    brier: float
    ece: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MinimumPosition:
    """Hold where the lowest value of a solution is, on average.

    Positions are from 0 (first) to 1 (last); ``at_first`` and ``at_last`` are shares of the solutions.
    """

    mean: float | None
    at_first: float | None
    at_last: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierSolutions:
    """Hold the quality of one verifier's scores of graded solutions.

    Attributes:
        used: the aggregation for which ``reliability`` is given.
        shortest: AUROC of taking the shorter of two solutions for the correct one.
        truth: correlation of correctness itself with length: that of a perfect verifier.
        minimum_position: for verifiers with several values per solution.
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
class Subject:
    """Name what a report is about; an empty tuple is unknown.

    Attributes:
        data: the data sets, by the common part of the problems' ids (``gsm8k/test``).
        generators: the models that sampled the solutions.
    """

    data: tuple[str, ...] = ()
    generators: tuple[str, ...] = ()

    def __or__(self, other: Subject) -> Subject:
        """Return all that either names, each once."""
        return Subject(
            data=tuple(dict.fromkeys([*self.data, *other.data])),
            generators=tuple(dict.fromkeys([*self.generators, *other.generators])),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Hold a whole report.

    Parts that were not requested, or for which there are no data, are None or empty.
    """

    subject: Subject = Subject()

    accuracy: Accuracy | None = None
    searches: Budgets | None = None
    steps: dict[str, VerifierSteps] | None = None
    solutions: dict[str, VerifierSolutions] | None = None
    first_errors: dict[str, VerifierFirstErrors] | None = None
    config: dict[str, str | int | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Return JSON values: accuracies at the top level, no empty parts."""
        whole = asdict(self)
        empty = {"accuracy", *([] if self.warnings else ["warnings"])}
        parts = {key: value for key, value in whole.items() if value is not None and key not in empty}
        return (whole["accuracy"] or {}) | parts
