"""Choosing among the sampled solutions of a problem: majority, best-of-N, weighted vote, pass@k.

Every rule gives a curve over N, the number of samples it may look at; the estimates are those of
:mod:`sampling.estimators`. A solution without a final answer, or cut off at the token limit, is never
right and never a vote; best-of-N may pick it all the same, as it would in use, and is then wrong.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from sampling.estimators import best_of_n, elect, pass_at_k, vote
from sampling.store import Store
from stepverify import records
from stepverify.aggregate import AGGREGATIONS, Aggregation, aggregate, vote_weight
from stepverify.records import InputError, Ranking, Solution

CANDIDATES: tuple[Aggregation, ...] = ("prod", "min", "last", "mean")
_BATCH = 64  # rankings a write: each one waits for the disk


@dataclass(slots=True)
class Sample:
    """What ranking needs of one solution. ``predicted`` is the answer that it votes for; None is no vote."""

    id: str
    answer: str | None
    predicted: str | None
    right: bool
    num_steps: int
    scores: Mapping[str, Sequence[float]]


class Choice(TypedDict):
    """The aggregation of a verifier, and where it comes from."""

    how: Aggregation
    chosen_on: Literal["configured", "validation", "default"]


Pool = dict[str, list[Sample]]  # problem id → its samples, in the order of first appearance


def rank(
    input: Path,
    output: Path,
    *,
    aggregation: dict[str, Aggregation] | None = None,
    validation: Path | None = None,
    sizes: list[int] | None = None,
    num_subsets: int = 200,
    seed: int = 0,
) -> None:
    """Rank scored solutions by every rule; write one Ranking a problem.

    Args:
        input: graded and scored solutions, of any number of verifiers.
        output: the folder to write; a finished one is left as it is.
        aggregation: verifier → how its values become the score of a solution. Left out: ``last`` for an
            outcome verifier, ``prod`` for a process reward model (Lightman et al. 2023, section 2.6).
        validation: graded and scored solutions of *other* problems. For every verifier with more than one
            value a solution and no aggregation given, the best one at best-of-N there is taken.
        sizes: the numbers of samples N. Left out: powers of two up to the smallest number of samples that
            a problem has, and that number.
        num_subsets: random subsets for each N and problem over which votes are averaged.
        seed: of the subsets.

    Raises:
        InputError: ungraded or unscored solutions, too few samples, or validation problems in ``input``.
    """
    if num_subsets < 1:
        raise InputError(f"num_subsets: expected 1 or more, got {num_subsets}")
    config = {"aggregation": aggregation or {}, "sizes": sizes, "num_subsets": num_subsets, "seed": seed}
    inputs = {"input": input} | ({"validation": validation} if validation else {})

    def store() -> Store[Ranking]:
        return Store(output, Ranking, stage="rank", config=config, inputs=inputs)

    if (output / records.MANIFEST).is_file() and store().finished:
        print(f"{output}: already ranked, left as it is")
        return
    # The folder is made only after the input has passed: a mistake in `sizes` must not claim it.
    pool = _read_pool(input)
    grid = _grid(sizes, pool)
    chosen, table = _choose_aggregations(pool, aggregation or {}, validation, grid[-1])

    aggregations = {name: choice["how"] for name, choice in chosen.items()}

    from stepverify.answers import Grader

    with store() as out, Grader() as grader:
        waiting = [problem_id for problem_id in pool if problem_id not in out.done]
        for start in range(0, len(waiting), _BATCH):
            batch = []
            for problem_id in waiting[start : start + _BATCH]:
                samples, draw = pool[problem_id], {"num_subsets": num_subsets, "seed": _seed(seed, problem_id)}
                classes = grader.classes([sample.predicted for sample in samples])
                batch.append(rank_problem(problem_id, samples, classes, aggregations, grid, **draw))
            out.write(batch)
        out.finish({
            "num_problems": len(pool), "num_samples": grid[-1], "num_solutions": sum(map(len, pool.values())),
            "sizes": grid, "aggregation": chosen, "validation": table,
        })  # fmt: skip
    rankings = list(records.read_records(output, Ranking))
    print(f"{output}: {len(rankings)} problems; accuracy at N = {grid[-1]}")
    for rule in rankings[0].curves:
        print(f"  {rule:<28} {100 * math.fsum(r.curves[rule][-1] for r in rankings) / len(rankings):6.2f} %")


def rank_problem(
    problem_id: str,
    samples: Sequence[Sample],
    classes: Sequence[int | None],
    aggregation: Mapping[str, Aggregation],
    sizes: Sequence[int],
    *,
    num_subsets: int = 200,
    seed: int = 0,
) -> Ranking:
    """Curves and choices of every rule for one problem.

    The rules are ``pass@1``, ``majority``, ``oracle``, and for every verifier ``v`` of ``aggregation``
    ``v/best_of_n`` and ``v/weighted``. A choice takes all samples; where a curve splits a tie evenly, a
    choice takes the first. The choice of a vote is the solution of the winning class that the verifier
    scores best, or the first one for ``majority``. ``classes``: as for :func:`vote`.
    """
    ids, right = [sample.id for sample in samples], [sample.right for sample in samples]
    total, equal = len(samples), [1.0] * len(samples)

    def elected(weights: Sequence[float], scores: Sequence[float]) -> str | None:
        place = elect(classes, weights, scores)
        return None if place is None else ids[place]

    curves = {
        "pass@1": np.full(len(sizes), sum(right) / total),
        "majority": vote(classes, right, sizes, num_subsets=num_subsets, seed=seed),
    }
    choices = {"pass@1": ids[0], "majority": elected(equal, equal)}
    for name, how in aggregation.items():
        scores = [aggregate(sample.scores[name], how) for sample in samples]
        weights = [vote_weight(sample.scores[name], how) for sample in samples]
        curves[f"{name}/best_of_n"] = best_of_n(scores, right, sizes)
        curves[f"{name}/weighted"] = vote(classes, right, sizes, weights, num_subsets=num_subsets, seed=seed)
        choices[f"{name}/best_of_n"] = ids[max(range(total), key=scores.__getitem__)]
        choices[f"{name}/weighted"] = elected(weights, scores)
    curves["oracle"] = np.array([pass_at_k(total, sum(right), n) for n in sizes])
    choices["oracle"] = ids[right.index(True)] if any(right) else None
    plain = {rule: curve.tolist() for rule, curve in curves.items()}
    return Ranking(
        problem_id=problem_id, answer=samples[0].answer, num_samples=total,
        sizes=list(sizes), curves=plain, choices=choices,
    )  # fmt: skip


def _choose_aggregations(
    pool: Pool, configured: Mapping[str, Aggregation], validation: Path | None, largest: int
) -> tuple[dict[str, Choice], dict[str, Any] | None]:
    """Verifier → how its values become a score, and the table of validation."""
    samples = [sample for group in pool.values() for sample in group]
    names = sorted(samples[0].scores)
    for name, how in configured.items():
        if name not in names or how not in AGGREGATIONS:
            raise InputError(f"aggregation.{name}: {how}: expected one of {names}, and one of {AGGREGATIONS}")
    other = _read_pool(validation) if validation else {}
    if shared := other.keys() & pool.keys():
        raise InputError(f"validation: {len(shared)} problems are in the input as well, {min(shared)} for one")
    size = min([largest, *map(len, other.values())])
    chosen: dict[str, Choice] = {}
    table: dict[str, dict[Aggregation, float]] = {}
    for name in names:
        many = any(len(sample.scores[name]) > 1 for sample in samples)
        if name in configured:
            chosen[name] = {"how": configured[name], "chosen_on": "configured"}
        elif other and many:
            if any(name not in group[0].scores for group in other.values()):
                raise InputError(f"validation: {validation} has no score by '{name}'")
            table[name] = {how: _mean_best_of_n(other, name, how, size) for how in CANDIDATES}
            chosen[name] = {"how": max(CANDIDATES, key=table[name].__getitem__), "chosen_on": "validation"}
        else:
            # An outcome verifier may give a value a token; its score is the last one all the same.
            by_step = many and all(len(sample.scores[name]) == sample.num_steps for sample in samples)
            chosen[name] = {"how": "prod" if by_step else "last", "chosen_on": "default"}
    return chosen, {"num_problems": len(other), "n": size, "best_of_n": table} if other else None


def _mean_best_of_n(pool: Pool, name: str, how: Aggregation, size: int) -> float:
    return math.fsum(
        best_of_n([aggregate(s.scores[name], how) for s in samples], [s.right for s in samples], [size])[0]
        for samples in pool.values()
    ) / len(pool)  # fmt: skip


def _grid(sizes: Sequence[int] | None, pool: Pool) -> list[int]:
    smallest = min(pool, key=lambda problem_id: len(pool[problem_id]))
    total = len(pool[smallest])
    grid = sorted(set(sizes)) if sizes is not None else sorted({2**i for i in range(total.bit_length())} | {total})
    if not grid or grid[0] < 1:
        raise InputError(f"sizes: expected numbers of 1 or more, got {sizes}")
    if grid[-1] > total:
        raise InputError(f"sizes: {grid[-1]} samples were asked for, but problem {smallest} has {total}")
    return grid


def _seed(seed: int, problem_id: str) -> int:
    # Not from the place in the file: a resumed run draws what the whole one would have drawn.
    return int.from_bytes(hashlib.sha256(f"{seed}/{problem_id}".encode()).digest()[:8])


def is_right(solution: Solution) -> bool:
    """Whether the solution counts as right: a right final answer, reached before the token limit."""
    return bool(solution.correct) and solution.predicted is not None and solution.finish != "length"


def _read_pool(path: Path) -> Pool:
    pool: Pool = {}
    first, names = "", set[str]()
    for where, solution, _ in read_scored(path):
        here = f"{where}: solution {solution.id}"
        if solution.correct is None:
            raise InputError(f"{here} is not graded ('correct' is missing); run `sampling label` first")
        if not first:
            first, names = here, set(solution.scores)
        if differing := sorted(solution.scores.keys() ^ names):
            culprit = here if differing[0] in names else first
            raise InputError(f"{culprit} has no score by '{differing[0]}', others have; score all of them")
        answer = solution.predicted if solution.finish != "length" else None
        right, num_steps = is_right(solution), len(solution.steps)
        sample = Sample(solution.id, solution.answer, answer, right, num_steps, solution.scores)
        pool.setdefault(solution.problem_id, []).append(sample)
    return pool


def read_scored(path: Path, *, labels: bool = False) -> Iterator[tuple[str, Solution, int | None]]:
    """Yield ``(file:line, solution, number of tokens)`` of scored solutions.

    As :func:`stepverify.records.read_records` does, in half its time: token ids are only counted, step labels
    are left out without ``labels``, and in a line with the keys and types of a good one only scores are checked.
    """
    taken: set[tuple[object, ...]] = set()
    for where, data in (line for shard in records.shards(path) for line in records.read_json_lines(shard)):
        layout: tuple[object, ...] = ()
        num_tokens = None
        if isinstance(data, dict):
            if isinstance(data.get("token_ids"), list):
                num_tokens = len(data.pop("token_ids"))
            if not labels:
                data.pop("step_labels", None)
            layout = (*data, *map(type, data.values()))
        try:
            if layout in taken and all(map(_is_plain, data.get("scores", {}).values())):
                solution = Solution(**data)
            else:
                solution = records.parse_record(Solution, data)
                if solution.step_labels is None:  # labels are not taken as they are
                    taken.add(layout)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        yield where, solution, num_tokens


def _is_plain(values: Any) -> bool:
    return type(values) is list and {*map(type, values)} <= {float} and math.isfinite(sum(values))
