"""Choose the answer of a search by every rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sampling.search.base import Found
from sampling.search.records import Cost, SearchResult
from sampling.search.tree import Node
from sampling.selection.candidates import MISSING, Candidates, Sample
from sampling.selection.pool import powers_of_two
from sampling.selection.ranking import bind_rules, default_rules, rank_problem
from stepverify.aggregate import Aggregation
from stepverify.answers import Grader
from stepverify.records import Problem, Solution

CHOICE = "search"
"""Name of the strategy's own rule among the others."""


def conclude(
    problem: Problem, found: Found, solutions: Sequence[Solution], verifier: str, aggregation: Aggregation,
    grader: Grader, seed: int,
) -> SearchResult:  # fmt: skip
    """Apply the rules of ``sampling rank`` to the solutions of a search.

    Only distinct solutions that ended by themselves are chosen or vote. Of independent samples every sample counts, and
    those that were cut off stand for samples without an answer.

    Args:
        problem: the problem.
        found: what the search found.
        solutions: its nodes as graded solutions, in the same order.
        verifier: name of the scores.
        aggregation: how a solution's values become its score.
        grader: compares answers.
        seed: of the random subsets of fewer samples.
    """
    finished = [s for s in solutions if s.finish == "stop"]
    result = SearchResult(
        problem_id=problem.id, answer=problem.answer, cost=Cost(), num_expansions=0, num_finished=len(finished),
        values=found.values, strategy=found.strategy,
    )  # fmt: skip
    rules = bind_rules(default_rules(), {verifier: aggregation})
    samples = [as_sample(s) for s in (solutions if found.independent else finished)]
    if not finished:
        result.sizes = powers_of_two(len(samples)) if samples else [1]
        result.curves = {rule: [0.0] * len(result.sizes) for rule in rules} if problem.answer is not None else {}
        result.choices = dict.fromkeys(rules)
        return result
    before = grader.num_timeouts
    candidates = Candidates(
        samples=samples, classes=grader.classes([sample.predicted for sample in samples]),
        sizes=powers_of_two(len(samples)) if found.independent else [len(samples)], seed=seed,
    )  # fmt: skip
    ranking = rank_problem(problem.id, candidates, rules)
    result.num_timeouts = grader.num_timeouts - before
    result.sizes, result.choices = ranking.sizes, ranking.choices
    result.curves = ranking.curves if problem.answer is not None else {}
    if found.choice is not None:
        _add_own(result, found.nodes, found.choice, solutions)
    return result


def as_sample(solution: Solution) -> Sample:
    """Return a solution as a rule sees it; one that was cut off has neither answer nor score."""
    if solution.finish != "stop":
        return replace(MISSING, id=solution.id)
    return Sample(
        solution.id, solution.answer, solution.predicted, solution.solved, len(solution.steps), solution.scores
    )


def _add_own(result: SearchResult, nodes: Sequence[Node], choice: Node, solutions: Sequence[Solution]) -> None:
    chosen = next(s for node, s in zip(nodes, solutions, strict=True) if node is choice)
    result.choices[CHOICE] = chosen.id
    if result.answer is not None:
        result.curves[CHOICE] = [float(chosen.solved)] * len(result.sizes)
