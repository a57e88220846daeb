"""Generate solutions of problems: the first stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from itertools import groupby
from pathlib import Path
from typing import Any

from sampling.engines import Completion, Engine, SamplingOptions
from sampling.engines.prompts import Prompts, template_of
from sampling.runtime.inputs import read_examples, read_problems
from sampling.runtime.merging import copy, find_shards
from sampling.runtime.problem_shard import ProblemShard
from sampling.runtime.progress import Progress
from sampling.runtime.provenance import digest
from sampling.runtime.reuse import check_sampled, read_sampled
from sampling.runtime.scheduler import run, run_all, together
from sampling.runtime.seeds import derive_seed
from sampling.runtime.step_fit import StepFit
from sampling.runtime.store import Store
from sampling.runtime.writer import Writer
from stepverify.readers import Reader
from stepverify.records import InputError, Problem, Solution
from stepverify.template import Template


def generate(
    engine: Engine,
    problems: Reader,
    output: Path,
    num_samples: int = 8,
    sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 - frozen
    template: Template | None = None,
    few_shot: Reader | None = None,
    reuse_from: Sequence[Path] = (),
    seed: int = 0,
    shard: str | None = None,
    complete_shards: bool = False,
) -> None:
    """Sample solutions of problems.

    Args:
        engine: the engine that samples.
        problems: a reader of the problems.
        output: folder for the solutions, in any order; a killed run continues where it stopped.
        num_samples: solutions per problem.
        sampling: temperature, maximum length, stop texts.
        template: text around problems and steps; None takes the one that the model was exported with.
        few_shot: worked problems in front of every prompt, for models that were not trained on the template.
        reuse_from: outputs of other runs of this stage, finished or not, with fewer samples or other problems. Their
            samples are copied instead of being sampled again. Engine, sampling options, examples and seed must be the
            same. Or all shards of this run, by name or as ``folder/*``: this run then writes what it would have written
            without shards.
        seed: seed of the run. The seed of sample i of a problem derives from this, the problem's id and i.
        shard: ``i/n``: sample the problems of job i of n alone, by a hash of their ids; each job has its own output.
        complete_shards: sample here what missing and unfinished shards in ``reuse_from`` lack, in place of refusing.

    Solutions of prompts that a server refuses, if its engine skips those, are left out, counted and named in the
    manifest.

    Raises:
        InputError: no problems, a few-shot example that is also a problem, or ``reuse_from`` sampled in another way,
            or with shards that are missing, unfinished or of another run.
    """
    part = ProblemShard.parse(shard)
    if num_samples < 1:
        raise InputError(f"num_samples: expected >= 1, got {num_samples}")
    template = template_of(engine, template)
    todo = read_problems(problems)
    examples = read_examples(few_shot, todo)
    config = {
        "engine": engine.identity(), "num_samples": num_samples, "sampling": dataclasses.asdict(sampling),
        "template": dataclasses.asdict(template), "seed": seed, "problems": digest(todo), "few_shot": digest(examples),
    }  # fmt: skip
    todo = [problem for problem in todo if problem.id in part]
    described: dict[str, Any] = {"stage": "generate", "config": config | part.config(), "inputs": {}}
    with Store(output, Solution, **described, may_be_empty=part.divides) as store:
        if store.finished:
            print(f"{output}: already finished, {len(store.done)} solutions")
            return
        merged = find_shards(reuse_from, "generate", config, part, complete=complete_shards)
        check_sampled(merged.others, "generate", config)
        by_id = {p.id: p for p in todo}
        merged.copy(store)
        copied = _copy(read_sampled(merged.others, Solution), by_id, num_samples, store)
        # A server has refused these in a shard: they are asked for no more often than in one run.
        refused = {key for found in merged.summaries.values() for key in found.get("refused", {}).get("solutions", ())}
        left = (p for p in todo if not merged.holds(p.id))
        # If nothing is missing, neither a tokenizer nor a model is loaded.
        missing = [p for p in left if any(f"{p.id}#{i}" not in store.done for i in range(num_samples))]
        prompts = Prompts(engine, template, examples) if missing else None
        with Progress("generate", "solutions", total=len(todo) * num_samples, done=len(store.done)) as progress:
            progress.watch(engine)
            if prompts is not None:
                options = prompts.options(sampling)
                sampler = _Sampler(engine, options, prompts, num_samples, seed, store, progress, refused)
                run(sampler.sample_all(missing))
        fit = StepFit(template).add(store.records())
        summary = {"problems": len(todo), "solutions": len(store.done)} | problems.counted() | fit.counted()
        summary |= {"reuse_from": copied} if merged.others else {}
        summary |= {"refused": {"count": len(refused), "solutions": sorted(refused)}} if refused else {}
        figures = progress.summary()
        store.finish(summary | merged.add(figures))
    left_out = f"; left out: {problems.left_out}" if problems.left_out else ""
    print(f"{output}: {len(store.done)} solutions of {len(todo)} problems{left_out}")
    merged.say(output, figures["items_this_run"], "solutions")
    if refused:
        print(f"{output}: the server refused {len(refused)} solutions, such as {min(refused)}: they are left out")
    fit.warn()


def _copy(sampled: Iterable[Solution], problems: dict[str, Problem], num_samples: int, store: Store[Solution]) -> int:
    """Write the wanted solutions that the store lacks, and count reused ones."""
    copied = set[str]()

    def wanted() -> Iterator[Solution]:
        for solution in sampled:
            problem, number = problems.get(solution.problem_id), int(solution.id.rpartition("#")[2])
            if problem is None or number >= num_samples or solution.id in copied:
                continue
            if (problem.problem, problem.answer) != (solution.problem, solution.answer):
                continue  # the problem has been edited since
            copied.add(solution.id)
            yield solution

    copy(wanted(), store)
    return len(copied)


@dataclasses.dataclass
class _Sampler:
    """Sample the missing solutions of one run."""

    engine: Engine
    sampling: SamplingOptions
    prompts: Prompts
    num_samples: int
    seed: int
    store: Store[Solution]
    progress: Progress
    refused: set[str]

    async def sample_all(self, problems: Iterable[Problem]) -> None:
        """Sample the missing solutions of all problems.

        Works on no more problems at the same time than the engine can use.
        """
        with Writer(self.store) as writer:
            async with aclosing(self.engine):

                async def sample(problem: Problem) -> None:
                    await together(self._fill(problem, gap, writer) for gap in self._gaps(problem))

                await run_all(problems, sample, max_in_work=-(-self.engine.capacity // self.num_samples))

    def _gaps(self, problem: Problem) -> list[list[int]]:
        # A kill between two lines leaves the first samples of a problem: they stay, and the rest is sampled.
        # Lines removed by hand leave gaps: one request fills one gap.
        absent = [i for i in range(self.num_samples) if f"{problem.id}#{i}" not in self.store.done]
        gaps = groupby(enumerate(absent), key=lambda pair: pair[1] - pair[0])
        return [[i for _, i in gap] for _, gap in gaps]

    async def _fill(self, problem: Problem, gap: list[int], writer: Writer[Solution]) -> None:
        seed, name = derive_seed(self.seed, problem.id), Path(self.engine.model).name
        request = self.prompts.request(f"{problem.id}#{gap[0]}", problem.problem, len(gap), seed + gap[0])

        def solutions(completions: Iterable[tuple[int, Completion]]) -> list[Solution]:
            return [self.prompts.solution(problem, i, c, seed=seed + i, generator=name) for i, c in completions]

        try:
            completions = await self.engine.complete(request, self.sampling)
        except BaseException:  # what a server has served before it died is not lost
            writer.keep(solutions((gap[i], c) for i, c in request.served.items()))
            raise
        whole = [(i, c) for i, c in zip(gap, completions, strict=True) if c.finish != "refused"]
        self.refused.update(f"{problem.id}#{i}" for i in {*gap} - {i for i, _ in whole})
        await writer.write(solutions(whole))
        self.progress.add(len(gap), tokens=sum(c.num_tokens for _, c in whole))
