"""Join a search's solutions with first samples, as policies do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from sampling.search.finished import FinalRule, FinishedSearch, Shared
from sampling.search.outcome import as_sample
from sampling.selection.candidates import Candidates, Sample
from sampling.selection.ranking import bind_rules
from sampling.selection.rules import BestOfN, Majority, Rule, WeightedVote
from stepverify.answers import Grader
from stepverify.jsonl import read_records
from stepverify.records import InputError, Solution

_RULES: dict[FinalRule, Rule] = {"best_of_n": BestOfN(), "weighted_vote": WeightedVote(), "majority": Majority()}
_VERIFIER = "verifier"  # the same in all searches, whatever they name it


def join_first_samples(shared: Shared, num_samples: int, final_rule: FinalRule) -> dict[str, np.ndarray]:
    """Compute each search's accuracy with best-of-N's first samples among its solutions.

    Args:
        shared: the searches; best-of-N is one of them.
        num_samples: first samples of each problem.
        final_rule: chooses among all.

    Returns:
        Search → probability of being correct, shape (problems,); without searches by BestOfN.

    Raises:
        InputError: solutions that are not there.
    """
    baseline = shared.best_of_n
    assert baseline is not None
    first = _finished(baseline, shared.problems, num_samples)
    (rule,) = bind_rules([_RULES[final_rule]], {_VERIFIER: baseline.config["aggregation"]}).values()
    joined: dict[str, np.ndarray] = {}
    with ExitStack() as stack:
        grader = None if final_rule == "best_of_n" else stack.enter_context(Grader())
        for search in (search for search in shared.searches if not search.is_best_of_n):
            found = _finished(search, shared.problems)
            joined[search.name] = np.array([_accuracy(first[p] + found[p], rule, grader) for p in shared.problems])
    return joined


def _finished(search: FinishedSearch, problems: Sequence[str], first: int | None = None) -> Mapping[str, list[Sample]]:
    """Read the finished solutions among the first, or all, of each problem."""
    counts, found = dict.fromkeys(problems, 0), {problem: list[Sample]() for problem in problems}
    for solution in read_records(search.folder, Solution):
        problem = solution.problem_id
        if problem in counts:
            counts[problem] += 1
            if solution.finish == "stop" and (first is None or counts[problem] <= first):
                values = solution.scores.get(search.config["verifier_name"], [])
                found[problem].append(replace(as_sample(solution), scores={_VERIFIER: values}))
    if first is None and (lacking := [p for p in problems if len(found[p]) < search.results[p].num_finished]):
        raise InputError(f"searches.{search.name}: {search.folder}: lacks solutions of {lacking[0]}; search again")
    return found


def _accuracy(samples: Sequence[Sample], rule: Rule, grader: Grader | None) -> float:
    if not samples:
        return 0.0
    classes = grader.classes([s.predicted for s in samples]) if grader else [None] * len(samples)
    return float(rule.curve(Candidates(samples=samples, classes=classes, sizes=[len(samples)]))[0])
