"""Choosing among the sampled solutions of a problem: majority, best-of-N, weighted vote, pass@k.

Every rule gives a curve over N, the number of samples it may look at: the chance to be right, over the
random subsets of N of all samples. Best-of-N and pass@N have closed forms; the votes are averaged over
random subsets. A solution without a final answer, or cut off at the token limit, is never right and
never a vote; best-of-N may pick it all the same, as it would in use, and is then wrong.
"""

from __future__ import annotations

import hashlib
import math
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

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
    chosen, origins, table = _choose_aggregations(pool, aggregation or {}, validation, grid[-1])

    from stepverify.answers import Grader

    with store() as out, Grader() as grader:
        waiting = [problem_id for problem_id in pool if problem_id not in out.done]
        for start in range(0, len(waiting), _BATCH):
            batch = []
            for problem_id in waiting[start : start + _BATCH]:
                samples, draw = pool[problem_id], {"num_subsets": num_subsets, "seed": _seed(seed, problem_id)}
                classes = grader.classes([sample.predicted for sample in samples])
                batch.append(rank_problem(problem_id, samples, classes, chosen, grid, **draw))
            out.write(batch)
        out.finish({
            "num_problems": len(pool), "num_samples": sum(map(len, pool.values())), "sizes": grid,
            "aggregation": {name: {"how": how, "chosen_on": origins[name]} for name, how in chosen.items()},
            "validation": table,
        })  # fmt: skip
    rankings = list(records.read_records(output, Ranking))
    print(f"{output}: {len(rankings)} problems; accuracy at N = {grid[-1]}")
    for rule in rankings[0].curves:
        print(f"  {rule:<28} {100 * math.fsum(r.curves[rule][-1] for r in rankings) / len(rankings):6.2f} %")


def read_light(path: Path, *, labels: bool = False) -> Iterator[tuple[str, Solution, int, int | None]]:
    """Yield ``(file:line, solution, number of steps, number of tokens)`` of scored solutions.

    What ranking does not read, most of a line, is neither checked nor kept: token ids, meta data, steps and
    their labels (but with ``labels``, those both). Many times as fast as :func:`stepverify.records.read_records`.
    """
    for where, data in (line for shard in records.shards(path) for line in records.read_json_lines(shard)):
        light, steps, tokens = data, None, None
        if isinstance(data, dict) and isinstance(steps := data.get("steps"), list):
            light = {key: data[key] for key in _READ if key in data}
            light["steps"] = []
            if labels and data.get("step_labels") is not None:
                light |= {"steps": steps, "step_labels": data["step_labels"]}
            tokens = data.get("token_ids")
        try:
            # What is plainly well-formed is taken as it is; the rest is converted, or refused by key and value.
            solution = Solution(**light) if _is_plain(light) else records.parse_record(Solution, light)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        yield where, solution, len(steps or ()), len(tokens) if tokens else None


_TEXT, _NULL = frozenset({str}), type(None)
_READ: dict[str, frozenset[type]] = {
    "id": _TEXT, "problem_id": _TEXT, "problem": _TEXT, "answer": _TEXT | {_NULL}, "finish": _TEXT | {_NULL},
    "predicted": _TEXT | {_NULL}, "correct": frozenset({bool, _NULL}),
    "scores": frozenset({dict}), "steps": frozenset({list}),
}  # fmt: skip


def _is_plain(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and "step_labels" not in data
        and all(type(data.get(key)) in kinds for key, kinds in _READ.items())
        and all(type(v) is list and {*map(type, v)} <= {float} and isfinite(sum(v)) for v in data["scores"].values())
    )


def is_right(solution: Solution) -> bool:
    """Whether the solution counts as right: a right final answer, reached before the token limit."""
    return bool(solution.correct) and solution.predicted is not None and solution.finish != "length"


def _read_pool(path: Path) -> Pool:
    pool: Pool = {}
    first, names = "", set[str]()
    for where, solution, num_steps, _ in read_light(path):
        here = f"{where}: solution {solution.id}"
        if solution.correct is None:
            raise InputError(f"{here} is not graded ('correct' is missing); run `sampling label` first")
        if not first:
            first, names = here, set(solution.scores)
        if differing := sorted(solution.scores.keys() ^ names):
            culprit = here if differing[0] in names else first
            raise InputError(f"{culprit} has no score by '{differing[0]}', others have; score all of them")
        answer = solution.predicted if solution.finish != "length" else None
        scores = {sys.intern(name): array("d", solution.scores[name]) for name in sorted(names)}
        sample = Sample(solution.id, solution.answer, answer, is_right(solution), num_steps, scores)
        pool.setdefault(solution.problem_id, []).append(sample)
    return pool


def _choose_aggregations(
    pool: Pool, configured: Mapping[str, Aggregation], validation: Path | None, largest: int
) -> tuple[dict[str, Aggregation], dict[str, str], dict[str, Any] | None]:
    """Verifier → aggregation; verifier → where that comes from; and the table of validation."""
    samples = [sample for group in pool.values() for sample in group]
    names = list(samples[0].scores)
    for name, how in configured.items():
        if name not in names or how not in AGGREGATIONS:
            raise InputError(f"aggregation.{name}: {how}: expected one of {names}, and one of {AGGREGATIONS}")
    other = _read_pool(validation) if validation else {}
    if shared := other.keys() & pool.keys():
        raise InputError(f"validation: {len(shared)} problems are in the input as well, {min(shared)} for one")
    size = min([largest, *map(len, other.values())])
    chosen, origins, table = {}, {}, {}
    for name in names:
        many = any(len(sample.scores[name]) > 1 for sample in samples)
        # An outcome verifier may give a value a token; its score is the last one all the same.
        by_step = many and all(len(sample.scores[name]) == sample.num_steps for sample in samples)
        chosen[name], origins[name] = configured.get(name, "prod" if by_step else "last"), "default"
        if name in configured:
            origins[name] = "configured"
        elif other and many:
            if any(name not in group[0].scores for group in other.values()):
                raise InputError(f"validation: {validation} has no score by '{name}'")
            table[name] = {how: _mean_best_of_n(other, name, how, size) for how in CANDIDATES}
            chosen[name], origins[name] = max(CANDIDATES, key=table[name].__getitem__), "validation"
    described = {"num_problems": len(other), "n": size, "best_of_n": table}
    return chosen, origins, described if other else None


def _mean_best_of_n(pool: Pool, name: str, how: Aggregation, size: int) -> float:
    return math.fsum(
        best_of_n([aggregate(s.scores[name], how) for s in samples], [s.right for s in samples], [size])[0]
        for samples in pool.values()
    ) / len(pool)  # fmt: skip


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
    curves = {
        "pass@1": np.full(len(sizes), sum(right) / total),
        "majority": vote(classes, right, sizes, num_subsets=num_subsets, seed=seed),
    }
    choices = {"pass@1": ids[0], "majority": _elect(ids, classes, equal, equal)}
    for name, how in aggregation.items():
        scores = [aggregate(sample.scores[name], how) for sample in samples]
        weights = [vote_weight(sample.scores[name], how) for sample in samples]
        curves[f"{name}/best_of_n"] = best_of_n(scores, right, sizes)
        curves[f"{name}/weighted"] = vote(classes, right, sizes, weights, num_subsets=num_subsets, seed=seed)
        choices[f"{name}/best_of_n"] = ids[max(range(total), key=scores.__getitem__)]
        choices[f"{name}/weighted"] = _elect(ids, classes, weights, scores)
    curves["oracle"] = np.array([pass_at_k(total, sum(right), n) for n in sizes])
    choices["oracle"] = ids[right.index(True)] if any(right) else None
    plain = {rule: curve.tolist() for rule, curve in curves.items()}
    return Ranking(
        problem_id=problem_id, answer=samples[0].answer, num_samples=total,
        sizes=list(sizes), curves=plain, choices=choices,
    )  # fmt: skip


def best_of_n(scores: Sequence[float], correct: Sequence[bool], sizes: Sequence[int]) -> np.ndarray:
    """The chance that the best-scored of N random samples is right, exactly.

    Of the subsets of N of M samples, C(M-1-i, N-1) / C(M, N) have the i-th best (from 0) as their best.
    Solutions of equal score are picked with equal chance.

    Args:
        scores: (M,), higher is better; -inf is allowed.
        correct: (M,).
        sizes: (S,), each from 1 to M.

    Returns:
        (S,), in [0, 1].
    """
    total = len(scores)
    values, places, counts = np.unique(-np.asarray(scores, dtype=float), return_inverse=True, return_counts=True)
    share = np.bincount(places, weights=np.asarray(correct, dtype=float), minlength=len(values)) / counts
    return _first_chances(total, tuple(sizes)) @ np.repeat(share, counts)


@lru_cache(maxsize=8)
def _first_chances(total: int, sizes: tuple[int, ...]) -> np.ndarray:
    """(S, M): the chance that the i-th best of M is the best of N. From one to the next by a ratio below 1."""
    n, i = np.array(sizes)[:, None], np.arange(total - 1)[None, :]
    _check_sizes(sizes, total)
    ratios = np.maximum(total - n - i, 0) / (total - 1 - i)
    return np.concatenate([n / total, n / total * np.cumprod(ratios, axis=1)], axis=1)


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The chance that one of k samples at least is right: 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, section 2.1)."""
    _check_sizes((k,), num_samples)
    wrong = num_samples - num_correct
    return 1.0 - math.prod(max(wrong - i, 0) / (num_samples - i) for i in range(k))


def vote(
    classes: Sequence[int | None],
    correct: Sequence[bool],
    sizes: Sequence[int],
    weights: Sequence[float] | None = None,
    *,
    num_subsets: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """The chance that the answer with the most votes among N random samples is right.

    Classes with equally many votes win with equal chance. A subset in which nobody votes is wrong.
    Exact at N = 1 and N = M, an average over random subsets between.

    Args:
        classes: (M,), the class of each answer; None is no vote.
        correct: (M,); a class is right as far as its members are.
        sizes: (S,), each from 1 to M.
        weights: (M,), at least 0; None counts every vote once (Wang et al. 2022, self-consistency).
        seed: equal seeds draw equal subsets, whatever the votes are.

    Returns:
        (S,), in [0, 1].
    """
    total = len(classes)
    _check_sizes(sizes, total)
    known = {c: k for k, c in enumerate(dict.fromkeys(c for c in classes if c is not None))}
    if not known:
        return np.zeros(len(sizes))
    grid = tuple(sorted(set(sizes)))
    voters = np.array([i for i, c in enumerate(classes) if c is not None])
    votes = np.array([known[c] for c in classes if c is not None])
    weight = np.ones(len(votes)) if weights is None else np.asarray(weights, dtype=float)[voters]
    cells = (_parts(total, grid, num_subsets, seed)[:, voters] * len(known) + votes).ravel()
    # Not a matrix product: that takes as many times longer as there are classes.
    shape = (num_subsets, len(grid) + 1, len(known))

    def tally(values: np.ndarray) -> np.ndarray:
        added = np.bincount(cells, weights=np.tile(values, num_subsets), minlength=math.prod(shape)).reshape(shape)
        return added[:, :-1].cumsum(axis=1)

    sums = tally(weight)
    # Votes that weigh nothing are votes still, where no others are.
    present = (sums if weight.min() > 0 else tally(np.ones(len(votes)))) > 0
    # Equal sums of weights differ in their last bits when they were added in another order.
    winners = present & (sums >= sums.max(axis=2, keepdims=True) * (1 - 1e-12))
    right = np.asarray(correct, dtype=float)[voters]
    share = np.bincount(votes, weights=right) / np.bincount(votes)
    chances = (winners * share).sum(axis=2) / np.maximum(winners.sum(axis=2), 1)
    curve = dict(zip(grid, chances.mean(axis=0), strict=True)) | {1: right.sum() / total}
    return np.array([curve[n] for n in sizes])


@lru_cache(maxsize=1)
def _parts(total: int, grid: tuple[int, ...], num_subsets: int, seed: int) -> np.ndarray:
    """(num_subsets, M): subset s at the i-th size is made of the samples of parts s · (S + 1) to s · (S + 1) + i."""
    places = np.tile(np.arange(total), (num_subsets, 1))
    np.random.default_rng(seed).permuted(places, axis=1, out=places)
    return np.searchsorted(grid, places, side="right") + (len(grid) + 1) * np.arange(num_subsets)[:, None]


def _elect(
    ids: Sequence[str], classes: Sequence[int | None], weights: Sequence[float], scores: Sequence[float]
) -> str | None:
    sums: dict[int, float] = {}
    for c, weight in zip(classes, weights, strict=True):
        if c is not None:
            sums[c] = sums.get(c, 0.0) + weight
    if not sums:
        return None
    winner = max(sums, key=sums.__getitem__)
    return ids[max((i for i, c in enumerate(classes) if c == winner), key=scores.__getitem__)]


def _grid(sizes: Sequence[int] | None, pool: Pool) -> list[int]:
    smallest = min(pool, key=lambda problem_id: len(pool[problem_id]))
    total = len(pool[smallest])
    grid = sorted(set(sizes)) if sizes is not None else sorted({2**i for i in range(total.bit_length())} | {total})
    if not grid or grid[0] < 1:
        raise InputError(f"sizes: expected numbers of 1 or more, got {sizes}")
    if grid[-1] > total:
        raise InputError(f"sizes: {grid[-1]} samples were asked for, but problem {smallest} has {total}")
    return grid


def _check_sizes(sizes: Sequence[int], total: int) -> None:
    if not all(1 <= n <= total for n in sizes):
        raise ValueError(f"sizes: expected 1 to {total}, got {list(sizes)}")


def _seed(seed: int, problem_id: str) -> int:
    # Not from the place in the file: a resumed run draws what the whole one would have drawn.
    return int.from_bytes(hashlib.sha256(f"{seed}/{problem_id}".encode()).digest()[:8])
