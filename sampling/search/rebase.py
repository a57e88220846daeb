"""Search by reward-balanced expansion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

from sampling.search.base import Found, SearchStrategy, at_least
from sampling.search.tree import Node, Tree
from stepverify.records import InputError


class REBASE(SearchStrategy):
    """Divide a budget of continuations among prefixes by their values.

    Wu et al. 2024 ("Inference scaling laws", section 3.3): the N prefixes of one depth share as many continuations as
    solutions are still to be finished, by the softmax of their values; every solution that ends takes one from the
    budget. So N solutions are finished, from ever more promising prefixes.

    Where this differs from the public implementation: shares are rounded up in descending order of value, until the
    budget of the round is used up, so a round never asks for more than its budget; solutions that were cut off take
    their place, but are not finished.

    Args:
        num_samples: N, solutions to finish.
        temperature: of the softmax; small ones follow the values more closely.
    """

    def __init__(self, num_samples: int = 16, temperature: float = 0.2) -> None:
        at_least(1, num_samples=num_samples)
        if not temperature > 0:
            raise InputError(f"strategy.temperature: expected above 0, got {temperature}")
        self.num_samples, self.temperature = num_samples, temperature

    @property
    def concurrency(self) -> int:
        """Return N."""
        return self.num_samples

    async def search(self, tree: Tree) -> Found:
        """Search until N solutions have ended, or no prefix is left."""
        ended: list[Node] = []
        asked = [(tree.root, self.num_samples)]
        while asked and not tree.used_up:
            fresh = list(chain.from_iterable(await tree.expand(asked)))
            ended += [node for node in fresh if not node.is_open]
            asked = balanced([n for n in fresh if n.is_open], self.num_samples - len(ended), self.temperature)
        return Found(ended)


def balanced(nodes: Sequence[Node], budget: int, temperature: float) -> list[tuple[Node, int]]:
    """Divide a number of continuations among nodes by the softmax of their weights.

    Nodes without a share are left out.
    """
    if not nodes or budget < 1:
        return []
    top = max(node.weight for node in nodes)
    shares = [math.exp((node.weight - top) / temperature) for node in nodes]
    found: list[tuple[Node, int]] = []
    total = sum(shares)
    for share, node in sorted(zip(shares, nodes, strict=True), key=lambda pair: -pair[0]):
        number = min(math.ceil(budget * share / total - 1e-9), budget - sum(n for _, n in found))
        if number:
            found.append((node, number))
    return found
