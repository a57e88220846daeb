"""Hold the figures of searches in a report.

Shares are in [0, 1], intervals at 95 %.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sampling.report.summary import Difference, Estimate
from sampling.search.finished import FinalRule, Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPoint:
    """Hold costs and accuracies of one search, or best-of-N at one N.

    Attributes:
        search: its name.
        samples: N of best-of-N, the baseline at each; 0 for every other search.
        tokens: sampled tokens of a problem, mean.
        flops: FLOPs of a problem, mean, of generator and verifier; None if they are unknown.
        majority_flops: FLOPs without those of the verifier, which a majority vote does not need.
        solutions: finished solutions of a problem, mean.
        accuracy: rule → share of problems solved.
    """

    search: str
    samples: int
    tokens: float
    flops: float | None
    majority_flops: float | None
    solutions: float
    accuracy: dict[str, Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualBudget:
    """Hold a search's accuracy minus a baseline's at the search's mean cost.

    Attributes:
        unit: of the cost.
        cost: of the search, mean over problems.
        accuracy: of the search by the final rule.
        baseline: accuracy of ``best_of_n`` and ``majority`` at this cost; None beyond the ends of their curves.
        difference: paired over problems; None likewise.
        factor: cost at which best-of-N is first as accurate, over this cost; None if it never is, or always.
    """

    unit: Unit
    cost: float
    accuracy: float
    baseline: dict[str, float | None]
    difference: dict[str, Difference | None]
    factor: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BinResult:
    """Hold a search's accuracy in one bin of difficulty.

    ``difference``: from best-of-N at equal tokens in the bin; None without it.
    """

    accuracy: Estimate
    difference: Difference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ByDifficulty:
    """Hold the results by difficulty, the most difficult problems first.

    Attributes:
        by: what difficulty was measured by: ``held_out`` (pass@1 of other samples) or ``predicted`` (mean score of the
            first samples of best-of-N).
        edges: inner edges of the bins.
        num_problems: of each bin.
        unknown: problems without held-out samples, which are left out.
        searches: search → result in each bin.
    """

    by: str
    edges: list[float]
    num_problems: list[int]
    unknown: int
    searches: dict[str, list[BinResult]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """Hold accuracy against budget of several searches.

    Attributes:
        num_problems: those that all searches share.
        left_out: search → number of its other problems.
        final_rule: of the figure, the differences and the results by difficulty.
        best_of_n: name of the baseline; empty without one.
        curves: name before ``@`` → its searches in order of tokens; the baseline at each N.
        equal_budget: search → comparisons with the baseline, by tokens and by FLOPs.
        difficulty: results by difficulty.
        chosen: search by a policy → strategy → number of problems.
        strategies: search → class and arguments.
    """

    num_problems: int
    left_out: dict[str, int]
    final_rule: FinalRule
    best_of_n: str
    curves: dict[str, list[BudgetPoint]]
    equal_budget: dict[str, list[EqualBudget]]
    difficulty: list[ByDifficulty] = field(default_factory=list)
    chosen: dict[str, dict[str, int]] = field(default_factory=dict)
    strategies: dict[str, str] = field(default_factory=dict)
