"""Apply rules to the samples of a problem.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

import numpy as np

from sampling.selection.calibration import How
from sampling.selection.candidates import MISSING, Candidates
from sampling.selection.rules import (
    BestOfN,
    Majority,
    Oracle,
    Rule,
    SampleAccuracy,
    Shortest,
    Simulated,
    TopKVote,
    VerifierRule,
    WeightedVote,
)
from stepverify.aggregate import AGGREGATIONS
from stepverify.records import InputError, Ranking
from stepverify.statistics import auroc


def default_rules(top_k: Sequence[int] = (), simulated: Sequence[float] = ()) -> list[Rule]:
    """Return the rules that ``sampling rank`` applies by default."""
    of_verifier: list[VerifierRule] = [BestOfN(), WeightedVote(), *map(TopKVote, top_k)]
    made_up = [Simulated(area, rule) for area in simulated for rule in of_verifier]
    return [SampleAccuracy(), Majority(), Shortest(), *of_verifier, *made_up, Oracle()]


def bind_rules(
    rules: Sequence[Rule], aggregation: Mapping[str, How], compared: Collection[str] = ()
) -> dict[str, Rule]:
    """Bind the rules to the verifiers, and name them.

    Args:
        rules: a verifier's rule without a verifier becomes a rule of each.
        aggregation: verifier → the aggregation in use.
        compared: verifiers whose rules also apply under every aggregation, as ``v/best_of_n/min``.

    Returns:
        name → rule; a rule with two names is one object.

    Raises:
        InputError: no rule, an unknown verifier, or two rules with the same name.
    """
    named: list[tuple[str, Rule]] = []
    for of_verifier, group in groupby(rules, key=lambda rule: isinstance(rule, VerifierRule)):
        some = list(group)
        named += _of_verifiers(some, aggregation, compared) if of_verifier else [(rule.name, rule) for rule in some]  # type: ignore[arg-type]
    counts = Counter(name for name, _ in named)
    if not named or max(counts.values()) > 1:
        said = f"two are named {counts.most_common(1)[0][0]!r}" if named else "expected one at least"
        raise InputError(f"rules: {said}")
    return dict(named)


def _of_verifiers(
    rules: Sequence[VerifierRule], aggregation: Mapping[str, How], compared: Collection[str]
) -> list[tuple[str, Rule]]:
    for rule in rules:
        if rule.verifier is not None and rule.verifier not in aggregation:
            known = ", ".join(aggregation) or "none"
            raise InputError(f"rules: {type(rule).__name__}.verifier: {rule.verifier!r}: expected one of {known}")
    named: list[tuple[str, Rule]] = []
    for verifier, used in aggregation.items():
        own = [rule for rule in rules if rule.verifier in (None, verifier)]
        for how in dict.fromkeys((*AGGREGATIONS, used)) if verifier in compared else (used,):
            suffixes = [""] * (how == used) + [f"/{how}"] * (verifier in compared)
            for rule in (rule for rule in own if rule.aggregation is None):
                bound = rule.bind(verifier, how)
                named += [(f"{verifier}/{rule.kind}{suffix}", bound) for suffix in suffixes]
        for rule in (rule for rule in own if rule.aggregation is not None):
            named.append((f"{verifier}/{rule.kind}/{rule.aggregation}", rule.bind(verifier, rule.aggregation)))  # type: ignore[arg-type]
    return named


def rank_problem(problem_id: str, candidates: Candidates, rules: Mapping[str, Rule]) -> Ranking:
    """Apply rules to the samples of one problem.

    A curve splits a tie evenly; a choice takes the first sample.

    Args:
        problem_id: id of the problem.
        candidates: its samples.
        rules: name → rule, as returned by :func:`bind_rules`.
    """
    ids = [sample.id for sample in candidates.samples]
    there = np.array([sample is not MISSING for sample in candidates.samples])
    correct = np.array(candidates.correct)[there]
    known: dict[int, tuple[list[float], str | None, float | None]] = {}
    for rule in rules.values():
        if id(rule) not in known:
            place = rule.choice(candidates) if rule.chooses else None
            values = rule.order(candidates)
            area = None if values is None else auroc(np.array(values, float)[there], correct)
            known[id(rule)] = rule.curve(candidates).tolist(), None if place is None else ids[place], area
    found = {name: known[id(rule)] for name, rule in rules.items()}
    return Ranking(
        problem_id=problem_id, answer=candidates.samples[0].answer, num_samples=int(there.sum()),
        sizes=list(candidates.sizes), curves={name: curve for name, (curve, _, _) in found.items()},
        choices={name: choice for name, (_, choice, _) in found.items() if rules[name].chooses},
        auroc_by_rule={name: area for name, (_, _, area) in found.items() if area is not None},
    )  # fmt: skip
