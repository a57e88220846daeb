"""Search by Monte Carlo tree search with PUCT."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from sampling.search.base import Found, SearchStrategy, at_least
from sampling.search.tree import Node, Tree
from stepverify.records import InputError


@dataclass(slots=True, eq=False)
class Branch:
    """Hold the statistics of a node.

    Attributes:
        node: the prefix.
        prior: probability that its parent gives it.
        visits: simulations that passed through.
        total: sum of their values.
        branches: expanded children; None before the expansion.
        exhausted: every solution below has ended, and was visited.
    """

    node: Node
    prior: float = 1.0
    visits: int = 0
    total: float = 0.0
    branches: list[Branch] | None = None
    exhausted: bool = False

    @property
    def value(self) -> float:
        """Return the mean value; the verifier's own before the first visit."""
        return self.total / self.visits if self.visits else self.node.weight

    @property
    def finished(self) -> bool:
        """Tell whether a solution that ended by itself is here or below."""
        return self.node.finish == "stop" or any(branch.finished for branch in self.branches or ())


@dataclass(slots=True)
class _Simulations:
    """Hold what a search has found so far."""

    root: Branch
    ended: list[Node] = field(default_factory=list)


class MCTS(SearchStrategy):
    """Choose what to expand by upper confidence bounds.

    Each simulation descends from the problem by PUCT (Silver et al. 2017, "Mastering the game of Go without human
    knowledge", section Methods: Q + c · P · √N(parent) / (1 + N), with c = log((1 + N(parent) + base) / base) + init)
    to a prefix that has not been expanded, samples ``width`` next steps there, evaluates it, and adds the value to all
    prefixes on the way. With ``evaluation: value`` that is the verifier's value of the prefix, without any rollout, as
    in AlphaZero; with ``rollout`` it is the verifier's value of one complete solution sampled from there, which counts
    as found.

    Where this differs from public implementations: a child that was not visited has the verifier's value in place of Q,
    and the bonus of one visit of its parent at least; a solution that has ended is visited once, and what has ended
    below a prefix closes it, so that no simulation is spent on it again; a solution that was cut off has the value 0;
    the root is expanded once, by the first simulation, and counted as any other prefix.

    Args:
        num_simulations: number of simulations; fewer if every solution has ended.
        width: next steps of a prefix.
        evaluation: what a simulation's value is.
        prior: ``values`` for probabilities in proportion to the verifier's values of the next steps, or ``uniform``.
        choice: the solution that the search itself selects (rule ``search``), by descending to the child with the most
            ``visits`` or the highest mean ``value`` (the other settles equals), among those with a finished solution
            below. Votes over all finished solutions are given beside it, as for every strategy.
        exploration_init: init of the bonus.
        exploration_base: base of the bonus.
        merge_duplicates: next steps of equal text are one child, with the sum of their priors.
    """

    def __init__(
        self, num_simulations: int = 32, width: int = 4, evaluation: Literal["value", "rollout"] = "value",
        prior: Literal["values", "uniform"] = "values", choice: Literal["visits", "value"] = "visits",
        exploration_init: float = 1.25, exploration_base: float = 19652.0, merge_duplicates: bool = True,
    ) -> None:  # fmt: skip
        at_least(1, num_simulations=num_simulations, width=width)
        for key, value, least in (("init", exploration_init, 0.0), ("base", exploration_base, 1.0)):
            if not least <= value < math.inf:
                raise InputError(f"strategy.exploration_{key}: expected >= {least:g}, got {value}")
        self.num_simulations, self.width, self.evaluation = num_simulations, width, evaluation
        self.prior, self.choice, self.merge_duplicates = prior, choice, merge_duplicates
        self.exploration_init, self.exploration_base = exploration_init, exploration_base

    @property
    def concurrency(self) -> int:
        """Return the number of next steps of a prefix."""
        return self.width

    async def search(self, tree: Tree) -> Found:
        """Run the simulations one after the other."""
        found = _Simulations(Branch(tree.root))
        for _ in range(self.num_simulations):
            if found.root.exhausted or tree.used_up:
                break
            await self._simulate(tree, found)
        return Found(found.ended, self._chosen(found.root))

    async def _simulate(self, tree: Tree, found: _Simulations) -> None:
        path = [found.root]
        while path[-1].branches:
            path.append(self._selected(path[-1]))
        leaf = path[-1]
        if leaf.node.is_open:
            (children,) = await tree.expand([(leaf.node, self.width)])
            found.ended += [node for node in children if not node.is_open]
            leaf.branches = self._branches(children)
            value = await self._evaluated(tree, leaf, found)
        else:
            value = leaf.node.weight if leaf.node.finish == "stop" else 0.0
        for branch in reversed(path):
            branch.visits += 1
            branch.total += value
            below = branch.branches
            branch.exhausted = all(b.exhausted for b in below) if below is not None else not branch.node.is_open

    async def _evaluated(self, tree: Tree, leaf: Branch, found: _Simulations) -> float:
        if self.evaluation == "rollout":
            (rolled,) = await tree.expand([(leaf.node, 1)], "end")
            found.ended += rolled
            return sum(node.weight for node in rolled if node.finish == "stop")
        if leaf.node.parent is not None:
            return leaf.node.weight
        branches = leaf.branches or []  # the problem alone has no value: the mean of its first steps
        return sum(b.node.weight for b in branches) / len(branches) if branches else 0.0

    def _branches(self, children: Sequence[Node]) -> list[Branch]:
        """Return children with their priors, those of equal steps merged."""
        total = sum(node.weight for node in children)
        by_value = self.prior == "values" and total > 0
        merged: dict[object, Branch] = {}
        for node in children:
            share = node.weight / total if by_value else 1 / len(children)
            branch = merged.setdefault(node.steps if self.merge_duplicates else node.id, Branch(node, 0.0))
            branch.prior += share
        return list(merged.values())

    def _selected(self, parent: Branch) -> Branch:
        """Return the child of highest value and bonus, the first of equals."""
        base, visits = self.exploration_base, max(1, parent.visits)
        factor = (math.log((1 + visits + base) / base) + self.exploration_init) * math.sqrt(visits)
        open_branches = [branch for branch in parent.branches or () if not branch.exhausted]
        return max(open_branches, key=lambda b: b.value + factor * b.prior / (1 + b.visits))

    def _chosen(self, root: Branch) -> Node | None:
        branch = root
        while below := [b for b in branch.branches or () if b.finished]:
            branch = max(below, key=lambda b: (b.visits, b.value) if self.choice == "visits" else (b.value, b.visits))
        return branch.node if branch.node.finish == "stop" else None
