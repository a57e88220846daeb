"""Search independent subtrees, so that the beams stay diverse."""

from __future__ import annotations

from itertools import chain

from sampling.search.base import Found, SearchStrategy, best, check_beams
from sampling.search.tree import Node, Tree


class DVTS(SearchStrategy):
    """Grow N / M subtrees, each by the best of M next steps.

    Diverse verifier tree search (Beeching et al. 2024, "Scaling test-time compute with open models"): the N beams are
    divided into N / M subtrees that never compete with one another. Each subtree begins with M first steps; its best
    one is continued M times, and so on until the best has ended.

    Where this differs from the public implementation: a subtree that has ended asks for nothing more; all finished
    solutions are returned, not only the children of the final round; those that were cut off are not finished.

    Args:
        num_beams: N, as in best-of-N.
        width: M, a divisor of N.
    """

    def __init__(self, num_beams: int = 16, width: int = 4) -> None:
        check_beams(num_beams, width)
        self.num_beams, self.width = num_beams, width

    @property
    def concurrency(self) -> int:
        """Return N."""
        return self.num_beams

    async def search(self, tree: Tree) -> Found:
        """Search until the best of every subtree has ended."""
        ended: list[Node] = []
        tops = [tree.root] * (self.num_beams // self.width)
        while tops and not tree.used_up:
            groups = await tree.expand([(top, self.width) for top in tops])
            ended += [node for node in chain.from_iterable(groups) if not node.is_open]
            tops = [node for group in groups for node in best(group, 1) if node.is_open]
        return Found(ended)
