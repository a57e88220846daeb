"""Hold how well verifiers find first errors.

Shares are in [0, 1], intervals at 95 %; an undefined value is None.
"""

from __future__ import annotations

from dataclasses import dataclass

from sampling.report.summary import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstErrorRates:
    """Hold accuracies on erroneous and correct solutions, and their harmonic mean."""

    threshold: float
    erroneous_accuracy: Estimate | None
    correct_accuracy: Estimate | None
    f1: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LowestValue:
    """Hold how often the lowest value is at the first error.

    Places are means from 0 (first step) to 1 (final step).
    """

    at_first_error: float | None
    place_incorrect: float | None
    place_first_error: float | None
    place_correct: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstErrorQuality:
    """Hold how well first errors are found, by threshold.

    ``half`` is the threshold 1/2, ``chosen`` the one chosen on a subset, if any.
    """

    num_incorrect: int
    num_correct: int
    half: FirstErrorRates
    chosen: FirstErrorRates | None
    lowest: LowestValue


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanF1:
    """Hold F1 as a mean over subsets with equal weights."""

    half: Estimate | None
    chosen: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierFirstErrors:
    """Hold how well one verifier finds first errors.

    Attributes:
        num_unread: solutions that it could not read whole; they count as judged incorrectly.
        chosen_on: the subset on which a threshold was chosen.
        subsets: results by subset; empty if there is only one, and ``mean`` is then None.
        all: results over all solutions.
    """

    num_unread: int
    chosen_on: str | None
    subsets: dict[str, FirstErrorQuality]
    all: FirstErrorQuality
    mean: MeanF1 | None
