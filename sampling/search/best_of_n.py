"""Sample independent solutions: the baseline of every search."""

from __future__ import annotations

from sampling.search.base import Found, SearchStrategy, at_least
from sampling.search.tree import Tree


class BestOfN(SearchStrategy):
    """Sample N solutions; the verifier reads them once they are complete.

    The solutions are those of ``sampling generate`` with the same seed. The N samples are independent, so one run gives
    the curve of every smaller N, at its share of the cost.

    Args:
        num_samples: N.
    """

    needs_step_values = False

    def __init__(self, num_samples: int = 16) -> None:
        at_least(1, num_samples=num_samples)
        self.num_samples = num_samples

    @property
    def concurrency(self) -> int:
        """Return N."""
        return self.num_samples

    async def search(self, tree: Tree) -> Found:
        """Sample and score N solutions."""
        (nodes,) = await tree.expand([(tree.root, self.num_samples)], "end")
        return Found(nodes, independent=True, values=[node.weight for node in nodes])
