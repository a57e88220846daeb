"""Choose the best search for each budget and predicted difficulty."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sampling.search.finished import FinalRule, Unit, check_rule, differing, read_pass_at_1, read_shared
from sampling.search.policy import is_policy
from stepverify import atomic
from stepverify.records import InputError

if TYPE_CHECKING:
    from sampling.search.policy import Policy


def policy(
    searches: dict[str, Path],
    budgets: list[float],
    output: Path,
    *,
    unit: Unit = "tokens",
    num_samples: int = 4,
    num_bins: int = 5,
    final_rule: FinalRule = "best_of_n",
    held_out: Path | None = None,
    num_bootstrap: int = 2000,
    seed: int = 0,
) -> None:
    """Choose the best search for each budget and predicted difficulty.

    The compute-optimal policy of Snell et al. 2024 (section 3.2), for ``sampling search --policy``: the first samples
    of a problem predict its difficulty by their mean score, and the problem is searched in the way that was best on the
    validation problems of that difficulty, among those whose mean cost there, with the samples, fits the budget.

    Every accuracy that is printed is measured by two-fold cross-validation: bins and choices are made on one half of
    the problems, and measured on the other. Beside the policy stand the best single search, chosen in the same way but
    without first samples; bins by pass@1 in place of the prediction, known for nothing; and best-of-N at the policy's
    measured cost. As in the policy's search, the first samples are among the solutions that the final rule has.

    Args:
        searches: name → output of `sampling search` on validation problems, each with one strategy; one is by BestOfN,
            which stands for every smaller number of samples too. Only problems that all have count.
        budgets: largest mean costs of a problem, each at least that of the first samples.
        output: file to write, such as ``policy.json``; an earlier policy is replaced.
        unit: what budgets count: sampled ``tokens``, or ``flops`` of generator and verifier.
        num_samples: first samples of a problem that predict its difficulty; 4 to 8 are usual. Their cost counts.
        num_bins: bins of difficulty, at quantiles of the prediction.
        final_rule: chooses the final answer of every search: ``best_of_n`` (the best score), ``weighted_vote`` or
            ``majority``.
        held_out: graded solutions of these problems, sampled with another seed, for the bins by pass@1; null takes the
            samples of the search by BestOfN, which favours it there.
        num_bootstrap: number of bootstrap resamples of the problems for each interval.
        seed: of the halves and the resamples.

    Raises:
        InputError: a search that has not finished; searches of different problems, or with another engine, verifier,
            template or limit; none by BestOfN; a budget below the cost of the first samples.
    """
    for key, value in (("num_samples", num_samples), ("num_bins", num_bins), ("num_bootstrap", num_bootstrap)):
        if value < 1:
            raise InputError(f"{key}: expected 1 or more, got {value}")
    if not budgets or not all(0 < budget < math.inf for budget in budgets):
        raise InputError(f"budgets: expected numbers above 0, got {budgets}")
    if unit not in get_args(Unit):
        raise InputError(f"unit: {unit!r}: expected one of {', '.join(get_args(Unit))}")
    check_rule(final_rule)
    atomic.refuse_others(output, folder=False)
    if output.exists() and not is_policy(output):
        raise InputError(f"{output}: is there, and is not a policy; choose another output")
    shared = read_shared(searches)
    for search in shared.searches:
        if difference := differing(shared.searches[0], search):
            raise InputError(f"{difference}; a policy is made of searches that differ in their strategies alone")
    if len(shared.problems) < 4 * num_bins:
        raise InputError(
            f"num_bins: {num_bins}: expected {4 * num_bins} problems at least that all searches have, there are "
            f"{len(shared.problems)}"
        )
    import msgspec

    from sampling.search.making import make_policy

    known = None if held_out is None else read_pass_at_1(held_out)
    made = make_policy(shared, sorted({*budgets}), unit, num_samples, num_bins, final_rule, known, num_bootstrap, seed)
    atomic.write(output, json.dumps(msgspec.to_builtins(made), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    _say(output, made, shared.left_out, num_bins)


def _say(output: Path, made: Policy, left_out: dict[str, int], num_bins: int) -> None:
    from sampling.report.policy_sections import policy_sections
    from sampling.report.render import to_text

    print("\n\n".join(map(to_text, policy_sections(made))))
    for name, number in left_out.items():
        print(f"searches.{name}: {number:,} problems that not all searches have are left out")
    if len(made.edges) + 1 < num_bins:
        print(f"num_bins: {len(made.edges) + 1} instead of {num_bins}, since many problems have equal predictions")
    print(output)
