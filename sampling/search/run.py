"""Search many problems concurrently, and keep everything that is found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field

from sampling.labelling.outcomes import grade_solutions
from sampling.runtime.progress import Progress
from sampling.runtime.scheduler import run_all
from sampling.runtime.seeds import derive_seed
from sampling.runtime.store import Store
from sampling.runtime.writer import Writer
from sampling.search.base import Found, SearchStrategy
from sampling.search.outcome import conclude
from sampling.search.records import SearchResult
from sampling.search.sampler import Sampler
from sampling.search.tree import Tree
from stepverify.aggregate import Aggregation
from stepverify.answers import Grader
from stepverify.records import Problem, Solution

OPEN = 1024
"""Largest number of problems that are searched at the same time."""


@dataclass(frozen=True)
class Limits:
    """Limit a search.

    Attributes:
        max_depth: steps of a solution; one that is longer is cut off.
        max_tokens: tokens sampled for a problem, after which the search ends with what it has found.
    """

    max_depth: int
    max_tokens: int | None


@dataclass
class SearchRun:
    """Search problems, grade what is found, and write it.

    Attributes:
        strategy: how to search.
        sampler: samples and scores.
        limits: of each search.
        verifier: name of the scores.
        aggregation: how the values of a solution become its score.
        grader: compares answers, in the thread of ``pool``.
        pool: one thread.
        solutions: store of the solutions.
        results: store of the results, in which a problem stands once all its solutions are written.
        progress: of the stage.
    """

    strategy: SearchStrategy
    sampler: Sampler
    limits: Limits
    verifier: str
    aggregation: Aggregation
    grader: Grader
    pool: Executor
    solutions: Store[Solution]
    results: Store[SearchResult]
    progress: Progress
    _written: Writer[Solution] = field(init=False)
    _concluded: Writer[SearchResult] = field(init=False)

    async def search_all(self, problems: list[Problem], max_problems: int | None) -> None:
        """Search problems, several at the same time, without waiting for the slowest of a round.

        Args:
            problems: those without a result.
            max_problems: largest number at the same time; None for as many as keep the engine busy.
        """
        # Of a round the longest step is awaited, while most of the others have ended.
        window = max_problems or min(OPEN, 1 + 4 * self.sampler.engine.capacity // self.strategy.concurrency)
        with self._writers():
            async with aclosing(self.sampler.engine), self.sampler.scorer:
                await run_all(enumerate(problems), self._search, max_in_work=window)

    @contextmanager
    def _writers(self) -> Iterator[None]:
        self._written, self._concluded = Writer(self.solutions), Writer(self.results)
        with self._concluded, self._written, self.sampler.memory.writing():
            yield

    async def _search(self, numbered: tuple[int, Problem]) -> None:
        order, problem = numbered
        start = time.monotonic()
        tree = Tree(problem, self.sampler, self.limits.max_depth, self.limits.max_tokens, order)
        found = await self.strategy.search(tree)
        found.nodes.sort(key=lambda node: node.place)  # equal scores are settled without regard to length
        await tree.score(found.nodes)
        seconds = round(time.monotonic() - start, 3)
        loop = asyncio.get_running_loop()
        solutions, result = await loop.run_in_executor(self.pool, self._concluding, problem, found)
        result.cost, result.num_expansions, result.seconds = tree.costs.total(), tree.num_expansions, seconds
        await self._written.write(s for s in solutions if s.id not in self.solutions.done)
        await self._concluded.write([result])
        self.progress.add(1, tokens=result.cost.generated_tokens)

    def _concluding(self, problem: Problem, found: Found) -> tuple[list[Solution], SearchResult]:
        solutions = []
        for i, node in enumerate(found.nodes):
            solution = self.sampler.solution(problem, i, node)
            solution.scores = {self.verifier: node.values or []}
            solution.meta = solution.meta | {"expansion": node.id}
            solutions.append(solution)
        if problem.answer is not None:
            grade_solutions(solutions, self.grader)
        seed = derive_seed(self.sampler.seed, problem.id, "subsets")
        return solutions, conclude(
            problem, found, solutions, self.verifier, self.aggregation, self.grader, seed % (1 << 32)
        )
