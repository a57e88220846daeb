"""Grow the tree of prefixes of one problem, and count what that costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np

from sampling.runtime.scheduler import together
from sampling.runtime.seeds import derive_seed
from sampling.search.costs import CostCounter
from stepverify.aggregate import aggregate, vote_weight

if TYPE_CHECKING:
    from sampling.search.sampler import Sampler
    from stepverify.records import Problem

How = Literal["step", "end", "greedy"]
"""Name how far an expansion goes: a step, the solution's end, or a step of the most likely tokens."""


@dataclass(slots=True, eq=False)
class Node:
    """Hold a prefix of a solution as it was sampled.

    Nodes with equal steps may differ: each is a sample of its own.

    Attributes:
        id: of its expansion; empty for the problem alone.
        parent: the prefix without this expansion; None at the root.
        text: the solution so far, without the separator that ended its final step ...
        sampled: ... and with all that was sampled.
        token_ids: all tokens sampled so far; None where a server does not say them.
        num_tokens: their number.
        steps: the steps of the text.
        finish: ``stop`` (ended by itself) or ``length`` (cut off, or at a limit); None for a prefix that can go on.
        values: the verifier's values; None before it was scored, empty if it was too long.
        score: the values' aggregate, which orders nodes; -inf without values.
        weight: the aggregate on the scale of probabilities.
        children: the expansions that were sampled from here.
        number: place among the children of the parent.
    """

    id: str = ""
    parent: Node | None = None
    text: str = ""
    sampled: str = ""
    token_ids: tuple[int, ...] | None = ()
    num_tokens: int = 0
    steps: tuple[str, ...] = ()
    finish: Literal["stop", "length"] | None = None
    values: list[float] | None = None
    score: float = float("-inf")
    weight: float = 0.0
    num_calculator_edits: int = 0
    children: list[Node] = field(default_factory=list)
    number: int = 0

    @property
    def is_open(self) -> bool:
        """Tell whether the solution can be continued."""
        return self.finish is None

    @property
    def depth(self) -> int:
        """Return the number of expansions from the problem to here."""
        return 0 if self.parent is None else self.parent.depth + 1

    @property
    def place(self) -> tuple[int, ...]:
        """Return the numbers from the problem to here.

        In their order the first solution of a tree is one that no value has chosen: a plain sample.
        """
        return () if self.parent is None else (*self.parent.place, self.number)


class Tree:
    """Expand and score the prefixes of one problem.

    Everything is asked for in the order in which the strategy asks, so that equal decisions give equal samples. The
    seed of a continuation derives from the run's seed, the problem, the steps so far and its number among those that
    were sampled after these steps: copies of a particle differ.

    Args:
        problem: the problem.
        sampler: samples, scores and keeps expansions.
        max_depth: expansions from the problem to a leaf; a node that is deeper is cut off.
        max_tokens: tokens after which nothing more is sampled; None for no limit. The round in which they are used up
            is completed.
        order: of problems that are searched at the same time, the one with the lowest is served first.
    """

    def __init__(
        self, problem: Problem, sampler: Sampler, max_depth: int, max_tokens: int | None = None, order: int = 0
    ) -> None:
        self.problem, self.max_depth, self.max_tokens, self.order = problem, max_depth, max_tokens, order
        self.root = Node()
        self.num_expansions = 0
        self.costs = CostCounter(sampler.pricing, problem)
        self._sampler = sampler
        self._numbers = Counter[tuple[How, tuple[str, ...]]]()

    @property
    def used_up(self) -> bool:
        """Tell whether the budget of tokens is used up."""
        return self.max_tokens is not None and self.costs.cost.generated_tokens >= self.max_tokens

    def random(self, *purpose: str | int) -> np.random.Generator:
        """Return random numbers that depend on the run's seed, the problem and the purpose only."""
        return np.random.default_rng(derive_seed(self._sampler.seed, self.problem.id, *purpose))

    async def expand(
        self, asked: Sequence[tuple[Node, int]], how: How = "step", *, scored: bool = True
    ) -> list[list[Node]]:
        """Sample continuations of nodes, all at the same time.

        Args:
            asked: open nodes, each with the number of its new children. Place siblings next to each other.
            how: up to the end of a step or of the solution.
            scored: score the children too, in one call.

        Returns:
            The new children of each node, in order.
        """
        asks = []
        for node, number in asked:
            assert node.is_open, "only a prefix that can go on is expanded"
            key = how, node.steps
            asks.append((node, self._numbers[key], number))
            self._numbers[key] += number
        groups = await together(self._sampler.sample(self, node, first, number, how) for node, first, number in asks)
        self.costs.count_sampled([node for node, _ in asked], groups)
        self.num_expansions += sum(map(len, groups))
        for node, children in zip((node for node, _ in asked), groups, strict=True):
            for child in children:
                child.number = len(node.children)
                node.children.append(child)
                if child.is_open and child.depth >= self.max_depth:
                    child.finish = "length"
        if scored:
            await self.score(list(chain.from_iterable(groups)))
        return groups

    async def score(self, nodes: Sequence[Node]) -> None:
        """Score the nodes that have no values yet, in one call."""
        if fresh := [node for node in nodes if node.values is None]:
            await self._sampler.score(self.problem, fresh)
            self.costs.count_scored(fresh)  # a verifier that samples knows its tokens only now
        for node in nodes:
            node.score = aggregate(node.values or (), self._sampler.aggregation)
            node.weight = vote_weight(node.values, self._sampler.aggregation) if node.values else 0.0
