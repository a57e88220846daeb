"""One run of the rollouts: which prefix is completed next, what comes of it, and when a problem is done."""

from __future__ import annotations

import dataclasses
import heapq
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sampling.engines import Completion, Request
from sampling.labelling.base import Stage
from sampling.labelling.step_tree import Node, build
from sampling.labelling.strategies import Paths, Strategy, informative
from sampling.runtime.store import Store
from sampling.stages.generate import derive_seed
from stepverify.answers import extract_answer
from stepverify.data.encode import SolutionEncoder
from stepverify.layout import Layout
from stepverify.records import InputError, Rollout, Solution, StepLabel

_WINDOW = 64  # problems in work at the same time


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Where to stop although labels are unsettled; the most informative prefixes come first.

    Attributes:
        rollouts: completions a problem.
        tokens: drawn tokens a problem; the round in which they run out is still drawn.
        seconds: of one run of the stage, from the first prefix on. It decides by the clock: what it cuts off is
            another thing in every run.
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
    """What decides which completions are asked for, and what they are; the fields are those of ``Rollouts``."""

    strategy: Strategy
    layout: Layout
    few_shot: str
    max_solutions: int | None
    reuse_samples: bool
    reuse_rollouts: bool
    budget: Budget
    seed: int


@dataclass(slots=True)
class Opened:
    """The solutions of one problem while their prefixes are being completed."""

    solutions: list[Solution]
    chosen: list[Solution]
    view: Paths
    pending: int = 0
    rollouts: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Ask:
    """So many completions of one prefix, from the ``first`` on."""

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
    """One run of the stage: the requests that an engine draws from, and what comes of them."""

    def __init__(
        self, plan: Plan, tokenizer: Any, groups: Iterable[list[Solution]], store: Store[Rollout],
        drawn_before: Mapping[str, Rollout],
    ) -> None:  # fmt: skip
        self.plan, self.store, self._groups = plan, store, iter(groups)
        self._encoder = SolutionEncoder(tokenizer, plan.layout)
        self._known = {**drawn_before, **{record.id: record for record in store.records()}}
        self.asked: dict[str, Ask] = {}
        self.exhausted = False
        self._waiting: list[tuple[tuple[float, int, int], Ask]] = []
        self._ready: list[Opened] = []
        self._num_open, self._number = 0, 0
        self._end = time.monotonic() + (plan.budget.seconds or float("inf"))

    def __iter__(self) -> Iterator[Request]:
        return self

    def __next__(self) -> Request:
        """The most informative prefix of the problems in work."""
        while self._num_open + len(self._ready) < _WINDOW and (solutions := next(self._groups, None)) is not None:
            self._open(solutions)
        if time.monotonic() > self._end:
            self._drop_waiting()
        if not self._waiting:
            self.exhausted = not self._num_open and not self._ready
            raise StopIteration
        ask = heapq.heappop(self._waiting)[1]
        self.asked[ask.key] = ask
        ids = self._encoder.path(ask.problem.solutions[0].problem, ask.node.steps(), self.plan.few_shot)
        return Request(ask.key, ids, ask.number, ask.seed)

    def _drop_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for _, ask in waiting:
            ask.problem.pending -= 1
            if not ask.problem.pending:
                self._advance(ask.problem)

    def _open(self, solutions: list[Solution]) -> None:
        chosen = solutions[: self.plan.max_solutions]
        root = build((s.id, _rolled(s)) for s in chosen)
        if self.plan.reuse_samples:
            for s in solutions:
                root.count(_rolled(s), right=bool(s.correct))
        paths = [(list(root.follow(_rolled(s))), bool(s.correct)) for s in chosen]
        self._num_open += 1
        self._advance(Opened(solutions, chosen, Paths(root, paths, self.plan.reuse_rollouts)))

    def _advance(self, problem: Opened) -> None:
        """Ask the strategy, and again as long as all that it wants is on record."""
        while asks := self._within_budget(problem):
            missing = [rest for ask in asks if (rest := self._from_record(ask))]
            for ask in missing:
                self._number += 1
                # Of equal ones the shorter first: when a longer prefix comes, the engine has cached the shorter one.
                order = (-informative(ask.node), len(ask.node.steps()), self._number)
                heapq.heappush(self._waiting, (order, ask))
            problem.pending = len(missing)
            if missing:
                return
        self._num_open -= 1
        self._ready.append(problem)

    def _from_record(self, ask: Ask) -> Ask | None:
        """Count what is on record of these completions; what is left of them to draw."""
        while (record := self._known.get(ask.key)) is not None and len(record.right) <= ask.number:
            part = dataclasses.replace(ask, number=len(record.right))
            if record.id not in self.store.done:  # drawn before, in another folder
                self.store.write([record])
            self._count(part, self._known.pop(ask.key))
            if part.number == ask.number:
                return None
            ask = dataclasses.replace(ask, first=ask.first + part.number, number=ask.number - part.number)
        return ask

    def _within_budget(self, problem: Opened) -> list[Ask]:
        budget, asks = self.plan.budget, []
        if time.monotonic() > self._end or (budget.tokens is not None and problem.tokens >= budget.tokens):
            return []
        left = budget.rollouts - problem.rollouts if budget.rollouts is not None else None
        for node, wanted in self.plan.strategy.ask(problem.view):
            number = wanted if left is None else min(wanted, left)
            if number:
                asks.append(Ask(problem, node, node.drawn, number, self.plan.seed))
                left = None if left is None else left - number
        return asks

    def take(self, ask: Ask, record: Rollout, stage: Stage) -> Iterator[list[Solution]]:
        """Keep and count graded completions; yield the problems that are done by them."""
        self.store.write([record])
        self._count(ask, record)
        stage.progress.draw(tokens=record.tokens)
        ask.problem.pending -= 1
        if not ask.problem.pending:
            self._advance(ask.problem)
        yield from self.finished()

    def _count(self, ask: Ask, record: Rollout) -> None:
        ask.node.drawn += ask.number
        ask.problem.rollouts += ask.number
        ask.problem.tokens += record.tokens
        for text, finish, right in zip(record.completions, record.finish, record.right, strict=True):
            steps = self.plan.layout.split(text)
            # What was cut off ends in a step that would have gone on.
            through = steps[: len(steps) - (finish == "length")] if self.plan.reuse_rollouts else []
            ask.node.count(through, right=right)

    def finished(self) -> Iterator[list[Solution]]:
        """Label and yield the problems about which nothing is left to ask."""
        while self._ready:
            problem = self._ready.pop()
            label = self.plan.strategy.conclude(problem.view)
            for solution, (path, _) in zip(problem.chosen, problem.view.paths, strict=True):
                solution.step_labels = [*map(label, path), *_final_labels(solution)]
            yield problem.solutions


def judged(ask: Ask, completions: list[Completion], stage: Stage) -> tuple[Ask, Rollout]:
    """The completions of a prefix, graded."""
    problem, steps = ask.problem.solutions[0], ask.node.steps()
    # Judged as solutions are: as a whole, for the prefix may state the answer; and not where it was cut off.
    answers = [None if c.finish == "length" else extract_answer("\n".join((*steps, c.text))) for c in completions]
    verdicts = stage.grader.grade((problem.answer, answer) for answer in answers)
    return ask, Rollout(
        id=ask.key, problem_id=problem.problem_id, steps=list(steps), seed=ask.seed,
        completions=[c.text for c in completions], finish=[c.finish for c in completions], answers=answers,
        right=[v is True for v in verdicts], tokens=sum(len(c.token_ids) for c in completions),
    )  # fmt: skip


def _rolled(solution: Solution) -> list[str]:
    """Steps that are labelled by rollouts: all but the final-answer step of a solution that ended by itself."""
    return solution.steps if solution.finish == "length" else solution.steps[:-1]


def _final_labels(solution: Solution) -> list[StepLabel | None]:
    graded = len(solution.steps) - len(_rolled(solution))  # 1 or, of a solution that was cut off or is empty, 0
    return [StepLabel(rating=1 if solution.correct else -1)] * graded
