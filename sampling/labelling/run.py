"""Complete prefixes and label steps, with one coroutine per problem."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile

from sampling.engines import Completion, Engine, SamplingOptions
from sampling.engines.prompts import Prompts
from sampling.labelling.base import Stage
from sampling.labelling.step_tree import Node, build
from sampling.labelling.strategies import Paths, Strategy, informative
from sampling.runtime.scheduler import PriorityLimit, together
from sampling.runtime.seeds import derive_seed
from sampling.runtime.store import Store
from sampling.runtime.writer import Writer
from stepverify.records import InputError, Problem, Rollout, Solution, StepLabel
from stepverify.template import Template


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limit the rollouts, even if some labels are unsettled then.

    The most informative prefixes are completed first.

    Attributes:
        rollouts: completions per problem.
        tokens: sampled tokens per problem; the round in which they are used up is still completed.
        seconds: duration of one run of the stage, from the first prefix on. Results then depend on the clock, and
            differ from run to run.
    """

    rollouts: int | None = None
    tokens: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for key, value in dataclasses.asdict(self).items():
            if value is not None and not value > 0:
                raise InputError(f"budget.{key}: expected above 0, got {value}")


@dataclass(frozen=True)
class Plan:
    """Describe which completions are sampled, and how.

    The fields are those of :class:`~sampling.labelling.Rollouts`.
    """

    strategy: Strategy
    template: Template
    few_shot: list[Problem]
    max_solutions: int | None
    reuse_samples: bool
    reuse_rollouts: bool
    budget: Budget
    seed: int


@dataclass(slots=True)
class Opened:
    """Hold the solutions of one problem while its prefixes are completed."""

    solutions: list[Solution]
    view: Paths
    rollouts: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Ask:
    """Ask for ``number`` completions of one prefix, from ``first`` on."""

    problem: Opened
    node: Node
    first: int
    number: int
    run_seed: int
    key: str = field(init=False)
    seed: int = field(init=False)

    def __post_init__(self) -> None:
        start = derive_seed(self.run_seed, self.problem.solutions[0].problem_id, *self.node.steps())
        self.key = f"{self.problem.solutions[0].problem_id}@{start:x}+{self.first}"
        self.seed = start + self.first


class Run:
    """Complete prefixes of many problems, and label each finished problem.

    A problem is finished when its strategy asks for nothing more. As an async context manager: sampled completions are
    graded and written on exit, whatever the reason.

    Attributes:
        prefixes_refused: prefixes that a server has refused to complete.
    """

    def __init__(
        self, plan: Plan, engine: Engine, sampling: SamplingOptions, stage: Stage, store: Store[Rollout],
        reuse_from: Mapping[str, Rollout],
    ) -> None:  # fmt: skip
        self.plan, self.engine, self.stage, self.store = plan, engine, stage, store
        self._writer = Writer(store)
        self._asked_sampling = sampling
        kept = (record for record in store.records() if not stage.merged.holds(record.problem_id))
        self._known = {**reuse_from, **{record.id: record for record in kept}}
        self._in_flight = PriorityLimit(engine.capacity)
        self._keeping = set[asyncio.Task[None]]()
        self.prefixes_refused = 0
        self._end = time.monotonic() + (plan.budget.seconds or float("inf"))

    @cached_property
    def _prompts(self) -> Prompts:  # no tokenizer is loaded where nothing is missing
        return Prompts(self.engine, self.plan.template, self.plan.few_shot)

    @cached_property
    def _sampling(self) -> SamplingOptions:
        return self._prompts.options(self._asked_sampling)

    async def __aenter__(self) -> Run:
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._writer:
            await asyncio.gather(*self._keeping, return_exceptions=True)

    async def label(self, solutions: list[Solution]) -> None:
        """Complete prefixes until the strategy is done, and label the steps."""
        chosen = solutions[: self.plan.max_solutions]
        root = build((s.id, _rolled(s)) for s in chosen)
        if self.plan.reuse_samples:
            for s in solutions:
                root.count(_rolled(s), correct=bool(s.correct))
        paths = [(list(root.follow(_rolled(s))), bool(s.correct)) for s in chosen]
        problem = Opened(solutions, Paths(root, paths, self.plan.reuse_rollouts))
        while asks := self._within_budget(problem):
            await together(self._complete(ask) for ask in asks)
        label = self.plan.strategy.conclude(problem.view)
        for solution, (path, _) in zip(chosen, problem.view.paths, strict=True):
            solution.step_labels = [*map(label, path), *_final_labels(solution)]

    def _within_budget(self, problem: Opened) -> list[Ask]:
        budget, asks = self.plan.budget, []
        if time.monotonic() > self._end or (budget.tokens is not None and problem.tokens >= budget.tokens):
            return []
        left = budget.rollouts - problem.rollouts if budget.rollouts is not None else None
        for node, wanted in self.plan.strategy.ask(problem.view):
            number = wanted if left is None else min(wanted, left)
            if number and not node.refused:
                asks.append(Ask(problem, node, node.sampled, number, self.plan.seed))
                left = None if left is None else left - number
        return asks

    async def _complete(self, ask: Ask) -> None:
        """Count the recorded completions, and sample the others."""
        while (record := self._known.get(ask.key)) is not None and len(record.correct) <= ask.number:
            del self._known[ask.key]
            if record.id not in self.store.done:  # sampled before, in another folder
                await self._writer.write([record])
            part = dataclasses.replace(ask, number=len(record.correct))
            self._count(part, record)
            ask = dataclasses.replace(ask, first=ask.first + part.number, number=ask.number - part.number)
            if not ask.number:
                return
        # The most informative prefix first, and among equals the shortest: the engine has then cached it when the
        # longer ones follow.
        async with self._in_flight.hold(ask.number, (-informative(ask.node), len(ask.node.steps()))):
            if time.monotonic() > self._end:
                return
            request = self._prompts.request(
                ask.key, ask.problem.solutions[0].problem, ask.number, ask.seed, ask.node.steps()
            )
            try:
                completions = await self.engine.complete(request, self._sampling)
            except BaseException:  # what a server has served before it died is not lost
                self._start_keeping(ask, _leading(request.served.get(i) for i in range(ask.number)))
                raise
        # An interruption loses no sampled completion.
        keeping = self._start_keeping(ask, _leading(None if c.finish == "refused" else c for c in completions))
        if any(c.finish == "refused" for c in completions):  # no evidence, neither for the prefix nor against it
            ask.node.refused = True
            self.prefixes_refused += 1
        await asyncio.shield(keeping)

    def _start_keeping(self, ask: Ask, completions: list[Completion]) -> asyncio.Task[None]:
        keeping = asyncio.create_task(self._keep(dataclasses.replace(ask, number=len(completions)), completions))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._kept)
        return keeping

    def _kept(self, task: asyncio.Task[None]) -> None:
        self._keeping.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved: who waits for it may have been cancelled by an earlier error

    async def _keep(self, ask: Ask, completions: list[Completion]) -> None:
        if not completions:
            return
        record = await self._graded(ask, completions)
        await self._writer.write([record])
        self._count(ask, record)
        self.stage.progress.count(tokens=record.tokens)

    async def _graded(self, ask: Ask, completions: list[Completion]) -> Rollout:
        problem, steps = ask.problem.solutions[0], ask.node.steps()
        # Graded like solutions: with the prefix, which may state the answer, and never if cut off.
        template = self.plan.template
        found = await self.stage.extract(
            "" if c.finish == "length" else template.join((*steps, template.strip(c.text, continued=bool(steps))))
            for c in completions
        )
        verdicts = await self.stage.grade((problem.answer, answer) for answer, _ in found)
        return Rollout(
            id=ask.key, problem_id=problem.problem_id, steps=list(steps), seed=ask.seed,
            completions=[c.text for c in completions], finish=[c.finish for c in completions],
            answers=[answer for answer, _ in found],
            correct=[v is True for v in verdicts], tokens=sum(c.num_tokens for c in completions),
            timed_out=[i for i, v in enumerate(verdicts) if v is None or found[i].timed_out],
        )  # fmt: skip

    def _count(self, ask: Ask, record: Rollout) -> None:
        ask.node.sampled += ask.number
        ask.problem.rollouts += ask.number
        ask.problem.tokens += record.tokens
        for text, finish, correct in zip(record.completions, record.finish, record.correct, strict=True):
            steps = self.plan.template.split(text, continued=bool(record.steps))
            # The final step of a completion that was cut off is incomplete.
            through = steps[: len(steps) - (finish == "length")] if self.plan.reuse_rollouts else []
            ask.node.count(through, correct=correct)


def _leading(completions: Iterable[Completion | None]) -> list[Completion]:
    """Return the completions before the first missing one: records hold consecutive ones."""
    return [c for c in takewhile(lambda c: c is not None, completions) if c is not None]


def _rolled(solution: Solution) -> list[str]:
    """Return the steps that are labelled by rollouts.

    These are all but the final-answer step of a solution that ended by itself.
    """
    return solution.steps if solution.finish == "length" else solution.steps[:-1]


def _final_labels(solution: Solution) -> list[StepLabel | None]:
    graded = len(solution.steps) - len(_rolled(solution))  # 1, or 0 for a solution that was cut off or is empty
    return [StepLabel(rating=1 if solution.correct else -1)] * graded
