"""Rank samples by majority vote, best-of-N, weighted vote and other rules.

Every rule gives a curve over N, the number of samples it may use; the estimates are those of
:mod:`sampling.selection.estimators`. A solution without a final answer, or cut off at the token limit, is never correct
and never votes. Best-of-N may still select it, as it would in use, and is then incorrect.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from msgspec import to_builtins

from sampling.runtime.provenance import check_independent, scored_by
from sampling.runtime.store import Store
from sampling.runtime.trained import trained_on
from sampling.selection.aggregation import choose_aggregations, map_steps
from sampling.selection.calibration import LEARNED, Calibration, How
from sampling.selection.calibration_files import count_shared, maps_of
from sampling.selection.candidates import MISSING, Candidates
from sampling.selection.length import describe_length_bias, find_length_bias
from sampling.selection.pool import Pool, choose_sizes, count_samples, drop_smaller, fill_up, has_many, read_pool
from sampling.selection.ranking import bind_rules, default_rules, rank_problem
from sampling.selection.rules import Rule
from stepverify import jsonl
from stepverify.aggregate import AGGREGATIONS
from stepverify.records import InputError, Ranking
from stepverify.training_problems import describe_trained

_BATCH = 64  # rankings per write, since each write waits for the disk


def rank(
    input: Path,
    output: Path,
    *,
    aggregation: dict[str, How] | None = None,
    calibration: Path | None = None,
    validation: Path | None = None,
    sizes: list[int] | None = None,
    num_subsets: int = 200,
    seed: int = 0,
    top_k: list[int] | None = None,
    every_aggregation: bool = False,
    count_missing: bool = False,
    simulated: list[float] | None = None,
    rules: list[Rule] | None = None,
    without_final_step: list[str] | None = None,
) -> None:
    """Rank scored solutions by every rule; write one Ranking per problem.

    Args:
        input: graded and scored solutions, of any number of verifiers.
        output: the folder to write; a finished one is left as it is.
        aggregation: verifier → how its values become the score of a solution. Default: ``last`` for an outcome verifier
            or implicit reward model, ``prod`` for a process reward model (Lightman et al. 2023, section 2.6).
            ``learned`` is that of ``calibration``, on uncalibrated values.
        calibration: file of ``sampling calibrate``, fitted on other problems. Maps of steps apply to every value; maps
            of solutions turn the aggregated score into the weight of a vote, and fix the aggregation; those of
            ``every_aggregation`` stay uncalibrated.
        validation: graded and scored solutions of *other* problems. Every verifier with several values per solution and
            no given aggregation takes the one with the best best-of-N accuracy there.
        sizes: the numbers of samples N. Default: a largest N that at least half of the problems reach, chosen to use as
            many samples as possible, and the powers of two below it. Problems with fewer samples than the largest N are
            left out of all curves, so that all rules and sizes use the same problems; they are counted and named.
        num_subsets: random subsets for each N and problem over which votes are averaged.
        seed: seed of the subsets.
        top_k: numbers k of best-scored samples that vote; of 100 samples, 3 to 5 work best (Cobbe et al. 2021, section
            4). Each is a rule ``v/top_<k>`` for every verifier ``v``.
        every_aggregation: also apply the rules of every verifier with several values per solution under all
            aggregations, as ``v/best_of_n/min`` for example. For comparison only: do not choose an aggregation from
            these.
        count_missing: count the samples that a problem lacks, relative to the problem with the most samples, as
            incorrect ones that every verifier ranks last, as OpenAI's evaluation of PRM800K does; ``sizes`` then go up
            to the largest number of samples.
        simulated: AUROCs within a problem, each at least 0.5 and below 1: also apply the rules of simulated verifiers
            with these AUROCs, as ``simulated_0.7/best_of_n``. Shows how good a verifier must be before one is trained.
        rules: the rules to apply, in this order, instead of the default ones: classes of ``sampling.selection.rules``,
            or your own, by ``class_path``. A verifier's rule applies to every verifier unless its ``verifier`` is
            given. Default: ``SampleAccuracy``, ``Majority``, ``Shortest``, ``BestOfN``, ``WeightedVote``, a
            ``TopKVote`` for each of ``top_k``, and ``Oracle``.
        without_final_step: process reward models whose value of a solution's final step is left out of its score, where
            that step states the final answer; counted.

    Raises:
        InputError: ungraded or unscored solutions, solutions of a search other than BestOfN, ``sizes`` that less than
            half of the problems reach, validation problems that are also in ``input``, ``rules`` together with
            ``top_k`` or ``simulated``, a rule of an unknown verifier, or two rules with the same name.
    """
    if num_subsets < 1:
        raise InputError(f"num_subsets: expected 1 or more, got {num_subsets}")
    config: dict[str, Any] = {"aggregation": aggregation or {}, "sizes": sizes}
    config |= {"num_subsets": num_subsets, "seed": seed}
    # Leave out options that were not given, so that folders made before these options existed stay valid.
    asked = {
        "top_k": top_k, "rules": [rule.identity() for rule in rules or ()],
        "every_aggregation": every_aggregation, "count_missing": count_missing,
        "without_final_step": without_final_step,
    }  # fmt: skip
    config |= {key: value for key, value in (asked | {"simulated": simulated}).items() if value}
    if top_k and (min(top_k) < 1 or len({*top_k}) < len(top_k)):
        raise InputError(f"top_k: expected different numbers of 1 or more, got {top_k}")
    if simulated and not 0.5 <= min(simulated) <= max(simulated) < 1:
        raise InputError(f"simulated: expected AUROCs of 0.5 or more and less than 1, got {simulated}")
    if rules is not None and (top_k or simulated):
        raise InputError(
            "rules: expected no top_k and no simulated with it; add TopKVote and Simulated to rules instead"
        )
    given = {"input": input, "validation": validation, "calibration": calibration}
    inputs = {key: path for key, path in given.items() if path}

    def store() -> Store[Ranking]:
        return Store(output, Ranking, stage="rank", config=config, inputs=inputs)

    if (output / jsonl.MANIFEST).is_file() and store().finished:
        print(f"{output}: already ranked, left as it is")
        return
    check_independent(inputs)
    # Read before the folder is made, so that an error in `sizes` does not bind it to this configuration.
    pool = read_pool(input, trimmed := without_final_step or [])
    everyone = {*pool}
    maps, shared = _calibrate(calibration, input, pool, aggregation or {}, trimmed)
    missing = {"missing": fill_up(pool)} if count_missing else {}
    grid = choose_sizes(sizes, pool)
    few = drop_smaller(pool, grid[-1])
    base_rate = fmean(s.correct for samples in pool.values() for s in samples if s is not MISSING)  # of real samples
    counts = count_samples(pool) | missing
    chosen, table = choose_aggregations(
        pool, aggregation or {}, validation, grid[-1], everyone, trimmed, maps, scored_by(input)
    )
    seen = {name: found for name, found in trained_on(input).items() if name in chosen}
    biased = find_length_bias(pool, chosen)

    aggregations = {name: choice["how"] for name, choice in chosen.items()}
    compared = [name for name in aggregations if every_aggregation and has_many(pool, name)]
    bound = bind_rules(default_rules(top_k or (), simulated or ()) if rules is None else rules, aggregations, compared)

    def ranking(problem_id: str) -> Ranking:
        before = grader.num_timeouts
        classes = grader.classes([sample.predicted for sample in pool[problem_id]])
        candidates = Candidates(
            samples=pool[problem_id], classes=classes, sizes=grid, num_subsets=num_subsets,
            seed=_seed(seed, problem_id), base_rate=base_rate, calibrations=maps,
        )  # fmt: skip
        found = rank_problem(problem_id, candidates, bound)
        found.num_timeouts = grader.num_timeouts - before
        return found

    from stepverify.answers import Grader

    with store() as out, Grader() as grader:
        waiting = [problem_id for problem_id in pool if problem_id not in out.done]
        for start in range(0, len(waiting), _BATCH):
            out.write(map(ranking, waiting[start : start + _BATCH]))
        rankings = list(out.records())
        out.finish({
            "num_problems": len(pool), "num_samples": grid[-1],
            "num_solutions": sum(map(len, pool.values())) - counts.get("missing", 0),
            "sizes": grid, "aggregation": chosen, "validation": table, **counts,
            **({"fewer_samples": few} if few else {}), **({"trained_on": seen} if seen else {}),
            **({"calibrated_on": shared} if shared else {}),
            **({"length_bias": to_builtins(biased)} if biased else {}),
            "answer_timeouts": sum(r.num_timeouts for r in rankings),
        })  # fmt: skip
    print(f"{output}: {len(rankings)} problems; accuracy at N = {grid[-1]}")
    print("  " + ", ".join(f"{key.replace('_', ' ')} {count}" for key, count in counts.items()))
    print("  aggregation: " + ", ".join(f"{n} {choice['how']} ({choice['chosen_on']})" for n, choice in chosen.items()))
    _say_left_out(few, grid[-1], table)
    _say_what_to_know(rankings, [*describe_trained(seen), *describe_length_bias(biased)], grader.time_limit)


def _calibrate(
    path: Path | None, input: Path, pool: Pool, aggregation: Mapping[str, How], trimmed: Collection[str]
) -> tuple[dict[str, Calibration], dict[str, Any]]:
    """Read the maps of the verifiers, map steps, and count the problems that the maps were fitted on."""
    if path is None:
        return {}, {}
    read, maps, without = maps_of(path, next(iter(pool.values()))[0].scores.keys(), input)
    for name in trimmed:
        if name in maps and maps[name].target == "solutions":
            raise InputError(f"without_final_step: {name}: its calibration was fitted with the final step's value")
    for line in without:
        print(f"  {line}")
    map_steps(pool, maps, aggregation)
    return maps, count_shared(read.problems, pool)


def _say_what_to_know(rankings: list[Ranking], warnings: list[str], time_limit: float) -> None:
    for line in warnings:
        print(f"  WARNING: {line}")
    if late := sum(r.num_timeouts for r in rankings):
        limit = f"{time_limit:g} s of CPU time"
        print(f"  {late:,} readings or comparisons of answers took longer than {limit}; they count as not equal")
    for rule in (r for r in rankings[0].curves if r.rpartition("/")[2] not in (*AGGREGATIONS, LEARNED)):
        print(f"  {rule:<28} {100 * math.fsum(r.curves[rule][-1] for r in rankings) / len(rankings):6.2f} %")


def _say_left_out(few: Mapping[str, int], size: int, table: Mapping[str, Any] | None) -> None:
    _say_few("", few, size)
    if table is not None:
        _say_few("validation: ", table.get("fewer_samples", {}), table["n"])


def _say_few(where: str, few: Mapping[str, int], size: int) -> None:
    if few:
        named = ", ".join(f"{problem_id} ({count})" for problem_id, count in [*few.items()][:5])
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        print(f"  {where}left out: {len(few)} problems with fewer than {size} samples: {named}{more}")


def _seed(seed: int, problem_id: str) -> int:
    # From the id, not the place in the file: a resumed run uses the same subsets as an uninterrupted one.
    return int.from_bytes(hashlib.sha256(f"{seed}/{problem_id}".encode()).digest()[:8])
