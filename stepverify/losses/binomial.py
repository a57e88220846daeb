"""Compute the likelihood of Monte Carlo counts."""

from __future__ import annotations

from stepverify.losses.pointwise import StepCrossEntropy


class StepBinomial(StepCrossEntropy):
    """Compute the binomial negative log-likelihood of k correct rollouts of n.

    With p the value of a step it is -(k log p + (n - k) log(1 - p)), without the binomial coefficient, which no weight
    of the model changes: n times the cross-entropy against the share k / n. A step with 8 of 16 thus weighs eight times
    as much as one with 1 of 2. The loss is divided by the number of rollouts, so every rollout counts equally. Needs
    ``targets.monte_carlo: soft``. A label without counts (a rating, a released value, the graded final answer) weighs
    as one rollout: a graded answer is one.

    Rollouts may be sampled until the first correct one, as ``EarlyStop`` does: the likelihood of such counts differs by
    a constant factor alone, while the mean of their shares is too high. Solutions with a common prefix share its
    rollouts; ``data.prefix_weighting: once`` counts them once.

    Source: the binomial likelihood of logistic regression on grouped counts (McCullagh and Nelder 1989, chapter 4);
    without the weights it is the soft estimation of Math-Shepherd (Wang et al. 2023, equation 4).
    """

    takes_neutral = False
    takes_counts = True
