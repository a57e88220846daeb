"""Choosing among the sampled solutions of a problem: majority, best-of-N, weighted vote, fewest steps, pass@k.

Every rule gives a curve over N, the number of samples it may look at; the estimates are those of
:mod:`sampling.selection.estimators`. A solution without a final answer, or cut off at the token limit, is never
right and never a vote; best-of-N may pick it all the same, as it would in use, and is then wrong.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypedDict

from sampling.runtime.scored import is_right, read_scored
from sampling.runtime.store import Store
from sampling.runtime.trained import trained_on
from sampling.selection.estimators import best_of_n
from sampling.selection.rules import MISSING, Sample, rank_problem
from stepverify import jsonl
from stepverify.aggregate import AGGREGATIONS, Aggregation, aggregate
from stepverify.records import InputError, Ranking
from stepverify.training_problems import describe_trained

CANDIDATES: tuple[Aggregation, ...] = ("prod", "min", "last", "mean")
_BATCH = 64  # rankings a write: each one waits for the disk


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
    top_k: list[int] | None = None,
    every_aggregation: bool = False,
    count_missing: bool = False,
    simulated: list[float] | None = None,
) -> None:
    """Rank scored solutions by every rule; write one Ranking a problem.

    Args:
        input: graded and scored solutions, of any number of verifiers.
        output: the folder to write; a finished one is left as it is.
        aggregation: verifier → how its values become the score of a solution. Left out: ``last`` for an
            outcome verifier, ``prod`` for a process reward model (Lightman et al. 2023, section 2.6).
        validation: graded and scored solutions of *other* problems. For every verifier with more than one
            value a solution and no aggregation given, the best one at best-of-N there is taken.
        sizes: the numbers of samples N. Left out: powers of two up to :func:`largest_size`, and that number. Problems
            with fewer samples than the largest N are left out of all curves, so that all rules and sizes are of the
            same problems; they are counted and named.
        num_subsets: random subsets for each N and problem over which votes are averaged.
        seed: of the subsets.
        top_k: numbers k of the best-scored samples that vote; of 100 samples 3 to 5 are best (Cobbe et al. 2021,
            section 4). Each is a rule ``v/top_<k>`` for every verifier ``v``.
        every_aggregation: give the rules of every verifier that has several values a solution under all aggregations
            too, as ``v/best_of_n/min`` for example: to be looked at, not to choose from.
        count_missing: count the samples that a problem has fewer than the largest number of any problem as wrong ones
            that every verifier ranks last, as OpenAI's evaluation of PRM800K does; ``sizes`` then go up to that number.
        simulated: areas under the ROC curve within a problem, from 0.5 up, below 1: give the rules of made-up verifiers
            of these areas too, as ``simulated_0.7/best_of_n``. Says how good a verifier must be, before there is one.

    Raises:
        InputError: ungraded or unscored solutions, ``sizes`` that less than half of the problems reach, or validation
            problems in ``input``.
    """
    if num_subsets < 1:
        raise InputError(f"num_subsets: expected 1 or more, got {num_subsets}")
    config: dict[str, Any] = {"aggregation": aggregation or {}, "sizes": sizes}
    config |= {"num_subsets": num_subsets, "seed": seed}
    # What was not asked for is left out, so that folders made before it could be are found as they are.
    asked = {"top_k": top_k, "every_aggregation": every_aggregation, "count_missing": count_missing}
    config |= {key: value for key, value in (asked | {"simulated": simulated}).items() if value}
    if top_k and (min(top_k) < 1 or len({*top_k}) < len(top_k)):
        raise InputError(f"top_k: expected different numbers of 1 or more, got {top_k}")
    if simulated and not 0.5 <= min(simulated) <= max(simulated) < 1:
        raise InputError(f"simulated: expected areas of 0.5 or more and less than 1, got {simulated}")
    inputs = {"input": input} | ({"validation": validation} if validation else {})

    def store() -> Store[Ranking]:
        return Store(output, Ranking, stage="rank", config=config, inputs=inputs)

    if (output / jsonl.MANIFEST).is_file() and store().finished:
        print(f"{output}: already ranked, left as it is")
        return
    pool = _read_pool(input)  # before the folder is made: a mistake in `sizes` must not claim it
    everyone = {*pool}
    missing = {"missing": _fill_up(pool)} if count_missing else {}
    grid = _grid(sizes, pool)
    few = _drop_smaller(pool, grid[-1])
    base_rate = fmean(s.right for samples in pool.values() for s in samples if s is not MISSING)  # of those there
    counts = _counts(pool) | missing
    chosen, table = _choose_aggregations(pool, aggregation or {}, validation, grid[-1], everyone)
    seen = {name: found for name, found in trained_on(input).items() if name in chosen}

    aggregations = {name: choice["how"] for name, choice in chosen.items()}
    compared = [name for name in aggregations if every_aggregation and _has_many(pool, name)]

    from stepverify.answers import Grader

    with store() as out, Grader() as grader:
        waiting = [problem_id for problem_id in pool if problem_id not in out.done]
        for start in range(0, len(waiting), _BATCH):
            batch = []
            for problem_id in waiting[start : start + _BATCH]:
                samples = pool[problem_id]
                classes = grader.classes([sample.predicted for sample in samples])
                batch.append(
                    rank_problem(
                        problem_id, samples, classes, aggregations, grid, top_k or (), compared,
                        simulated=simulated or (), base_rate=base_rate,
                        num_subsets=num_subsets, seed=_seed(seed, problem_id),
                    )
                )  # fmt: skip
            out.write(batch)
        out.finish({
            "num_problems": len(pool), "num_samples": grid[-1],
            "num_solutions": sum(map(len, pool.values())) - counts.get("missing", 0),
            "sizes": grid, "aggregation": chosen, "validation": table, **counts,
            **({"fewer_samples": few} if few else {}), **({"trained_on": seen} if seen else {}),
        })  # fmt: skip
    rankings = list(jsonl.read_records(output, Ranking))
    print(f"{output}: {len(rankings)} problems; accuracy at N = {grid[-1]}")
    print("  " + ", ".join(f"{key.replace('_', ' ')} {count}" for key, count in counts.items()))
    print("  aggregation: " + ", ".join(f"{n} {choice['how']} ({choice['chosen_on']})" for n, choice in chosen.items()))
    _say_left_out("", few, grid[-1])
    if table is not None:
        _say_left_out("validation: ", table.get("fewer_samples", {}), table["n"])
    for line in describe_trained(seen):
        print(f"  WARNING: {line}")
    for rule in (r for r in rankings[0].curves if r.rpartition("/")[2] not in AGGREGATIONS):
        print(f"  {rule:<28} {100 * math.fsum(r.curves[rule][-1] for r in rankings) / len(rankings):6.2f} %")


def _choose_aggregations(
    pool: Pool, configured: Mapping[str, Aggregation], validation: Path | None, largest: int, everyone: set[str]
) -> tuple[dict[str, Choice], dict[str, Any] | None]:
    """Verifier → how its values become a score, and the table of validation."""
    samples = [sample for group in pool.values() for sample in group]
    names = sorted(samples[0].scores)
    for name, how in configured.items():
        if name not in names or how not in AGGREGATIONS:
            raise InputError(f"aggregation.{name}: {how}: expected one of {names}, and one of {AGGREGATIONS}")
    other = _read_pool(validation) if validation else {}
    if shared := other.keys() & everyone:
        raise InputError(f"validation: {len(shared)} problems are in the input as well, {min(shared)} for one")
    size = min([largest, largest_size([*map(len, other.values())])]) if other else largest
    few = _drop_smaller(other, size)
    chosen: dict[str, Choice] = {}
    table: dict[str, dict[Aggregation, float]] = {}
    for name in names:
        many = _has_many(pool, name)
        if name in configured:
            chosen[name] = {"how": configured[name], "chosen_on": "configured"}
        elif other and many:
            if any(name not in group[0].scores for group in other.values()):
                raise InputError(f"validation: {validation} has no score by '{name}'")
            table[name] = {how: _mean_best_of_n(other, name, how, size) for how in CANDIDATES}
            chosen[name] = {"how": max(CANDIDATES, key=table[name].__getitem__), "chosen_on": "validation"}
        else:
            # An outcome verifier may give a value a token; its score is the last one all the same.
            # One that could not be read has no values, and says nothing of what they would be of.
            by_step = many and all(len(s.scores.get(name, ())) in (0, s.num_steps) for s in samples)
            chosen[name] = {"how": "prod" if by_step else "last", "chosen_on": "default"}
    named = {"fewer_samples": few} if few else {}
    return chosen, {"num_problems": len(other), "n": size, "best_of_n": table} | named if other else None


def _has_many(pool: Pool, name: str) -> bool:
    return any(len(sample.scores.get(name, ())) > 1 for samples in pool.values() for sample in samples)


def _counts(pool: Pool) -> dict[str, int]:
    """Solutions that are no vote, and problems that no rule can solve, or that every one does."""
    there = [[sample for sample in samples if sample is not MISSING] for samples in pool.values()]
    groups = [[sample.right for sample in samples] for samples in there]
    return {
        "without_answer": sum(sample.predicted is None for samples in there for sample in samples),
        "problems_without_right": sum(not any(right) for right in groups),
        "problems_without_wrong": sum(map(all, groups)),
    }


def _mean_best_of_n(pool: Pool, name: str, how: Aggregation, size: int) -> float:
    return math.fsum(
        best_of_n([aggregate(s.scores[name], how) for s in samples], [s.right for s in samples], [size])[0]
        for samples in pool.values()
    ) / len(pool)  # fmt: skip


def largest_size(counts: Sequence[int]) -> int:
    """Find the largest N of the curves.

    At N, the problems with at least N samples stay, and N samples of each count. Of all N that at least half of the
    problems reach, the one with the largest product of the two is taken, and of equals the one that keeps more
    problems: one problem with a single sample does not shrink the curves of hundreds, and a problem is not left out for
    a sample or two.

    Args:
        counts: samples of each problem.
    """
    ordered = sorted(counts, reverse=True)  # the k-th, from 1, is the largest N that k problems reach
    kept = max(range((len(ordered) + 1) // 2, len(ordered) + 1), key=lambda k: (ordered[k - 1] * k, k))
    return ordered[kept - 1]


def _grid(sizes: Sequence[int] | None, pool: Pool) -> list[int]:
    total = largest_size([*map(len, pool.values())])
    grid = sorted(set(sizes)) if sizes is not None else sorted({2**i for i in range(total.bit_length())} | {total})
    if not grid or grid[0] < 1:
        raise InputError(f"sizes: expected numbers of 1 or more, got {sizes}")
    fewer = [problem_id for problem_id, samples in pool.items() if len(samples) < grid[-1]]
    if 2 * len(fewer) > len(pool):
        raise InputError(
            f"sizes: {grid[-1]} samples were asked for, but {len(fewer)} of {len(pool)} problems have fewer; "
            f"problem {fewer[0]} has {len(pool[fewer[0]])}"
        )
    return grid


def _drop_smaller(pool: Pool, size: int) -> dict[str, int]:
    """Take out the problems with fewer samples than ``size``; gives how many each has."""
    few = {problem_id: len(samples) for problem_id, samples in pool.items() if len(samples) < size}
    for problem_id in few:
        del pool[problem_id]
    return few


def _say_left_out(where: str, few: Mapping[str, int], size: int) -> None:
    if few:
        named = ", ".join(f"{problem_id} ({count})" for problem_id, count in [*few.items()][:5])
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        print(f"  {where}left out: {len(few)} problems with fewer than {size} samples: {named}{more}")


def _fill_up(pool: Pool) -> int:
    """Give every problem as many samples as the one with most has; how many were missing."""
    most = max(map(len, pool.values()))
    lacking = [samples for samples in pool.values() for _ in range(most - len(samples))]
    for samples in lacking:
        samples.append(MISSING)
    return len(lacking)


def _seed(seed: int, problem_id: str) -> int:
    # Not from the place in the file: a resumed run draws what the whole one would have drawn.
    return int.from_bytes(hashlib.sha256(f"{seed}/{problem_id}".encode()).digest()[:8])


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
