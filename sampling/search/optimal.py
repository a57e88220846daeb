"""Search each problem with the strategy that a policy chooses."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sampling.search.base import Found, SearchStrategy
from sampling.search.best_of_n import BestOfN
from sampling.search.finished import predict
from sampling.search.policy import build, digest_ids, read_policy
from sampling.search.tree import Tree
from stepverify.manifest import first_difference
from stepverify.records import InputError


class ComputeOptimal(SearchStrategy):
    """Predict the difficulty by k samples, and search as a policy says.

    Snell et al. 2024, section 3.2. The first samples are solutions like those that the search finds, and cost as much
    as any others. A chosen best-of-N goes on from them to N samples; every other strategy searches in the same tree,
    where it samples what it would sample alone, but for complete solutions from the problem itself, as MCTS's rollouts
    begin with: their numbers come after those of the first samples.

    Args:
        policy: file of ``sampling policy``.
        budget: one of the policy's budgets, in its unit.
    """

    def __init__(self, policy: Path, budget: float) -> None:
        self.path, self.policy, self.budget = policy, read_policy(policy), budget
        plans = [plan for plan in self.policy.plans if plan.budget == budget]
        if not plans:
            known = ", ".join(f"{plan.budget:g}" for plan in self.policy.plans)
            raise InputError(f"budget: {budget:g}: {policy} has choices for {known} {self.policy.unit}")
        self.choices = plans[0].bins
        self.first = BestOfN(self.policy.num_samples)
        self.strategies = [build(choice.strategy, f"policy: {policy}") for choice in self.choices]
        self.needs_step_values = any(strategy.needs_step_values for strategy in self.strategies)

    @property
    def concurrency(self) -> int:
        """Return the largest of all strategies."""
        return max(self.policy.num_samples, *(strategy.concurrency for strategy in self.strategies))

    def identity(self) -> dict[str, Any]:
        """Return what the policy does at this budget."""
        chosen = [{"search": choice.search, **choice.strategy} for choice in self.choices]
        content = {"num_samples": self.policy.num_samples, "edges": self.policy.edges, "bins": chosen}
        return {"strategy": type(self).__name__, "budget": self.budget, "unit": self.policy.unit, "policy": content}

    def check(self, config: Mapping[str, Any], problems: Iterable[str]) -> None:
        """Check that a policy was made for this search.

        Warns if it was chosen on the same problems.

        Args:
            config: of the search.
            problems: ids.

        Raises:
            InputError: naming the key that differs.
        """
        here = json.loads(json.dumps({key: config.get(key) for key in self.policy.law}, default=str))
        if difference := first_difference(self.policy.law, here):
            raise InputError(f"policy: {self.path}: was made with {difference}; make a policy for this search")
        if digest_ids(problems) == self.policy.problems:
            print(
                f"WARNING: {self.path} was chosen on these same problems: accuracies are biased upwards; "
                "`sampling policy` has cross-validated ones",
                flush=True,
            )

    async def search(self, tree: Tree) -> Found:
        """Sample, predict and search."""
        first = await self.first.search(tree)
        number = bisect_right(self.policy.edges, predict(first.values, self.policy.num_samples))
        found = await self._go_on(tree, self.strategies[number])
        return Found(first.nodes + found.nodes, found.choice, values=first.values, strategy=self.choices[number].search)

    async def _go_on(self, tree: Tree, strategy: SearchStrategy) -> Found:
        if tree.used_up:
            return Found([])
        if isinstance(strategy, BestOfN):
            rest = strategy.num_samples - self.policy.num_samples
            return await BestOfN(rest).search(tree) if rest > 0 else Found([])
        return await strategy.search(tree)
