"""Search solutions of problems, guided by a verifier."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

from sampling.engines import Engine, SamplingOptions
from sampling.engines.base import Usage
from sampling.engines.prompts import Prompts, template_of
from sampling.runtime.inputs import read_examples, read_problems
from sampling.runtime.merging import Merged, copy, find_shards
from sampling.runtime.problem_shard import ProblemShard
from sampling.runtime.progress import Progress
from sampling.runtime.provenance import digest
from sampling.runtime.reuse import check_sampled, read_sampled
from sampling.runtime.scheduler import run
from sampling.runtime.step_fit import StepFit
from sampling.runtime.store import Store
from sampling.scorers import ExportedVerifier, Scorer
from sampling.scorers.calibrated import calibrated
from sampling.scorers.path import ExportPath
from sampling.scorers.trained import say_trained
from sampling.search import BestOfN, ComputeOptimal, Expansion, SearchResult, SearchStrategy
from sampling.search.checks import check_agreement, pricing_of
from sampling.search.costs import added
from sampling.search.memory import Kept, Memory
from sampling.search.records import Values
from sampling.search.run import Limits, SearchRun
from sampling.search.sampler import Sampler
from stepverify.aggregate import Aggregation
from stepverify.answers import Grader
from stepverify.jsonl import MANIFEST
from stepverify.manifest import read_manifest
from stepverify.readers import Reader
from stepverify.readers.released import digest as text_digest
from stepverify.records import InputError, Solution
from stepverify.template import Template

EXPANSIONS, VALUES, RESULTS = "expansions", "values", "results"
"""Subfolders of the output."""

_READ_AGAIN = 1.25  # tokens read, by those that costs count, above which the difference is said


def search(
    engine: Engine,
    problems: Reader,
    verifier: Scorer | ExportPath,
    output: Path,
    strategy: SearchStrategy | None = None,
    verifier_name: str = "prm",
    aggregation: Aggregation = "last",
    sampling: SamplingOptions = SamplingOptions(temperature=0.8),  # noqa: B008 - frozen
    template: Template | None = None,
    few_shot: Reader | None = None,
    max_depth: int = 40,
    max_tokens: int | None = None,
    max_problems: int | None = None,
    reuse_from: Sequence[Path] = (),
    time_limit: float = 3.0,
    seed: int = 0,
    policy: Path | None = None,
    budget: float | None = None,
    shard: str | None = None,
    complete_shards: bool = False,
    calibration: Path | None = None,
) -> None:
    """Search solutions of problems, guided by a verifier.

    Writes solutions with scores into ``output``, a result with costs for each problem into ``results/``, every
    continuation that was sampled into ``expansions/``, and the verifier's values of these into ``values/``. A search
    that was killed goes on, and asks for nothing twice.

    Args:
        engine: the engine that samples.
        problems: a reader of the problems.
        verifier: the scorer of prefixes and solutions: folder of an export or id of a hub repository, or ``class_path``
            and ``init_args`` of a scorer.
        output: folder for the solutions, in any order.
        strategy: BestOfN (the default), BeamSearch, Lookahead, DVTS, REBASE, ParticleFiltering or MCTS.
        verifier_name: name of the scores.
        aggregation: how the values of a prefix, and of a solution, become its score (Snell et al. 2024, section 5.1:
            last).
        sampling: temperature, the largest length of a solution in tokens, texts that end one.
        template: text around problems and steps; None takes the one that the model was exported with.
        few_shot: worked problems in front of every prompt.
        max_depth: steps of a solution; one that is longer is cut off.
        max_tokens: tokens sampled for a problem, after which its search ends with what it has found; null for no limit.
        max_problems: problems searched at the same time; null for as many as keep the engine busy. Changes no record.
        reuse_from: outputs of other searches, finished or not, with other strategies or budgets. What they have sampled
            is not sampled again. Engine, sampling options, examples and seed must be the same; values are reused if the
            verifier is the same too. Or all shards of this run, by name or as ``folder/*``: this run then writes what
            it would have written without shards.
        time_limit: seconds of CPU time that grading one answer may take.
        seed: of the run. The seed of a continuation derives from this, the problem's id, the steps before it and its
            number among those that were sampled there.
        policy: file of ``sampling policy``, in place of a strategy: searches each problem in the way that was best for
            its predicted difficulty. Engine, sampling options, template, examples, verifier and limits must be those
            that the policy was made with.
        budget: one of the policy's budgets, in its unit.
        shard: ``i/n``: search the problems of job i of n alone, by a hash of their ids; each job has its own output.
        complete_shards: search here what missing and unfinished shards in ``reuse_from`` lack, in place of refusing.
        calibration: file of ``sampling calibrate``; every value then guides the search as its map gives it. A map of
            the product or the mean of values needs them all, and is for ``sampling rank`` alone.

    Raises:
        InputError: no problems; a verifier whose steps are not the generator's, or an outcome verifier where the values
            of steps are needed; a limit below 1; a policy with a strategy, without a budget, or of another search;
            shards that are missing, unfinished or of another run.
    """
    part, strategy = ProblemShard.parse(shard), _strategy(strategy, policy, budget)
    _check_limits(max_depth=max_depth, max_tokens=max_tokens, max_problems=max_problems)
    template = template_of(engine, template)
    todo = read_problems(problems)
    scorers = {verifier_name: verifier if isinstance(verifier, Scorer) else ExportedVerifier(verifier)}
    verifier = calibrated(scorers, calibration, [problem.id for problem in todo])[verifier_name]
    verifier.keep_prefixes()
    examples = read_examples(few_shot, todo)
    check_agreement(verifier, verifier_name, strategy, template)
    law = {
        "engine": engine.identity(), "sampling": dataclasses.asdict(sampling), "template": dataclasses.asdict(template),
        "few_shot": digest(examples), "seed": seed,
    }  # fmt: skip
    scored = {"verifier": verifier.identity(), "verifier_name": verifier_name, "aggregation": aggregation}
    asked = {"strategy": strategy.identity(), "max_depth": max_depth, "max_tokens": max_tokens}
    config: dict[str, Any] = law | scored | asked | {"problems": digest(todo), "time_limit": time_limit}
    if isinstance(strategy, ComputeOptimal):
        strategy.check(config, [problem.id for problem in todo])
    todo, own = [problem for problem in todo if problem.id in part], config | part.config()
    with Store(output, Solution, stage="search", config=own, inputs={}, may_be_empty=part.divides) as store:
        if store.finished:
            print(f"{output}: already finished, {len(todo)} problems")
            return
        merged = find_shards(reuse_from, "search", config, part, complete=complete_shards)
        others = [folder / EXPANSIONS for folder in merged.others]
        check_sampled(others, EXPANSIONS, law)
        trained = say_trained({verifier_name: verifier}, {text_digest(p.problem): p.id for p in todo})
        folders = _folders(output, own, law, may_be_empty=part.divides)
        with folders[0] as expansions, folders[1] as values, folders[2] as results:
            _copy(merged, store, expansions, values, results)
            missing = [problem for problem in todo if problem.id not in results.done]
            figures: dict[str, Any] = {}
            with (
                Grader(time_limit=time_limit) as grader, ThreadPoolExecutor(1, "grading") as pool,
                Progress("search", "problems", len(todo), len(results.done)) as progress,
            ):  # fmt: skip
                progress.watch(engine)
                before = dataclasses.replace(verifier.usage or Usage())
                if missing:
                    prompts = Prompts(engine, template, examples)
                    memory = Memory(
                        Kept(expansions, read_sampled(others, Expansion)),
                        Kept(values, read_sampled(_of_verifier(merged.others, config["verifier"]), Values)),
                    )
                    sampler = Sampler(
                        engine, verifier, prompts, sampling, memory, aggregation, seed,
                        pricing_of(engine, verifier, prompts),
                    )  # fmt: skip
                    work = SearchRun(
                        strategy, sampler, Limits(max_depth, max_tokens), verifier_name, aggregation, grader, pool,
                        store, results, progress,
                    )  # fmt: skip
                    run(work.search_all(missing, max_problems))
                    figures = {"refused_this_run": sampler.num_refused, "unscored_this_run": sampler.num_unscored}
                figures |= progress.summary() | _read_by(verifier, before) | verifier.counted()
            fit = StepFit(template).add(store.records())
            counted = problems.counted() | fit.counted() | {"trained_on": trained}
            summary = _summary(results.records()) | counted | merged.add(figures)
            expansions.finish({})
            values.finish({})
            results.finish(summary)
        store.finish(summary)
    merged.say(output, figures["items_this_run"], "problems")
    _say(output, summary)
    fit.warn()


def _check_limits(**limits: int | None) -> None:
    for key, value in limits.items():
        if value is not None and value < 1:
            raise InputError(f"{key}: expected >= 1, got {value}")


def _folders(
    output: Path, config: dict[str, Any], law: dict[str, Any], *, may_be_empty: bool
) -> tuple[Store[Expansion], Store[Values], Store[SearchResult]]:
    of_values = law | {"verifier": config["verifier"]}
    return (
        Store(output / EXPANSIONS, Expansion, stage=EXPANSIONS, config=law, inputs={}, may_be_empty=may_be_empty),
        Store(output / VALUES, Values, stage=VALUES, config=of_values, inputs={}, may_be_empty=may_be_empty),
        Store(output / RESULTS, SearchResult, stage=RESULTS, config=config, inputs={}, may_be_empty=may_be_empty),
    )


def _copy(
    merged: Merged, solutions: Store[Solution], expansions: Store[Expansion], values: Store[Values],
    results: Store[SearchResult],
) -> None:  # fmt: skip
    """Copy what shards have found; results come last, as a problem that has one is not searched again."""
    merged.copy(expansions, EXPANSIONS)
    merged.copy(values, VALUES)
    concluded = {result.problem_id for result in merged.records(SearchResult, RESULTS)}
    copy((s for s in merged.records(Solution) if s.problem_id in concluded), solutions)
    merged.copy(results, RESULTS)


def _strategy(strategy: SearchStrategy | None, policy: Path | None, budget: float | None) -> SearchStrategy:
    if policy is None:
        if budget is not None:
            raise InputError(
                f"budget: {budget:g}: expected a policy that was made for it; max_tokens limits a strategy"
            )
        return strategy or BestOfN()
    if strategy is not None:
        raise InputError(f"policy: {policy}: expected no strategy with it, since it chooses one")
    if budget is None:
        raise InputError(f"policy: {policy}: expected one of its budgets in `budget`")
    return ComputeOptimal(policy, budget)


def _read_by(verifier: Scorer, before: Usage) -> dict[str, int]:
    """Return the tokens that a verifier read in this run, and those of them that it did not compute."""
    if (now := verifier.usage) is None:
        return {}
    return {
        "verifier_tokens_this_run": now.prompt_tokens - before.prompt_tokens,
        "cached_verifier_tokens_this_run": now.cached_tokens - before.cached_tokens,
    }


def _of_verifier(folders: Sequence[Path], identity: dict[str, Any]) -> list[Path]:
    """Return the folders of values that the same verifier gave."""
    now = json.loads(json.dumps(identity))
    found = [folder / VALUES for folder in folders if (folder / VALUES / MANIFEST).is_file()]
    return [folder for folder in found if read_manifest(folder / MANIFEST)["config"]["verifier"] == now]


def _summary(results: Iterable[SearchResult]) -> dict[str, Any]:
    results = list(results)
    cost = added(result.cost for result in results)
    graded = [result for result in results if result.curves]
    rules = dict.fromkeys(rule for result in graded for rule in result.curves)
    strategies = Counter(result.strategy for result in results if result.strategy)
    return {
        "problems": len(results), "finished": sum(r.num_finished for r in results),
        "without_solution": sum(not r.num_finished for r in results),
        "accuracy": {rule: fmean(r.curves.get(rule, [0.0])[-1] for r in graded) for rule in rules},
        "cost": {name: getattr(cost, name) for name in cost.__struct_fields__},
        "answer_timeouts": sum(r.num_timeouts for r in results),
    } | ({"strategies": dict(strategies)} if strategies else {})  # fmt: skip


def _say(output: Path, summary: dict[str, Any]) -> None:
    cost, number = summary["cost"], summary["problems"]
    if not number:
        print(f"{output}: no problem is in this shard")
        return
    print(
        f"{output}: {number:,} problems, {summary['finished']:,} finished solutions; a problem costs on average "
        f"{cost['generated_tokens'] / number:,.0f} sampled tokens, {cost['prompt_tokens'] / number:,.0f} read by the "
        f"engine ({cost['cached_prompt_tokens'] / number:,.0f} cached), {cost['verifier_tokens'] / number:,.0f} by the "
        f"verifier ({cost['cached_verifier_tokens'] / number:,.0f} cached)"
    )
    for rule, accuracy in summary["accuracy"].items():
        print(f"  {rule:<28} {100 * accuracy:6.2f} %")
    for key, text in (
        ("without_solution", "problems without a finished solution: they count as incorrect"),
        ("unscored_this_run", "prefixes too long for the verifier: nothing ranks below them"),
        ("refused_this_run", "completions that the server refused"),
        ("without_verdict_this_run", "critiques of the verifier ended without a verdict, and count nowhere"),
        ("answer_timeouts", "comparisons of two answers took too long; they count as not equal"),
    ):
        if count := summary.get(key, 0):
            print(f"  {count:,} {text}")
    # A continuation also reads the last token of its prefix, which costs count as a sampled one.
    for who, counted, read, cached in (
        ("engine", cost["prompt_tokens"] + cost["engine_calls"], "prompt_tokens", "cached_tokens"),
        ("verifier", cost["verifier_tokens"], "verifier_tokens", "cached_verifier_tokens"),
    ):
        computed = summary.get(f"{read}_this_run", 0) - summary.get(f"{cached}_this_run", 0)
        if computed > _READ_AGAIN * counted:
            print(
                f"  {computed:,} tokens were read by the {who}, and costs count {counted:,}: its prefix cache did not "
                "hold the others; enlarge it (prefix_cache_gib), or search fewer problems at once (max_problems)"
            )
