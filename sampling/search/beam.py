"""Search with a beam of prefixes, with lookahead or without."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from sampling.search.base import Found, SearchStrategy, at_least, best, check_beams, distinct
from sampling.search.tree import Node, Tree


class BeamSearch(SearchStrategy):
    """Keep the best N / M of N beams after every step, and continue each M times.

    Snell et al. 2024, section 5.2: N first steps are sampled, the N / M of highest value are kept, and M next steps of
    each are sampled, until all beams that are kept have ended.

    Where this differs from public implementations: a beam that has ended stays in the pool with its score, takes one
    place and is never copied; a beam that was cut off counts as ended, but not as finished; every finished solution is
    returned, also one that was outscored later, sorted by no rule of its own.

    Args:
        num_beams: N, as in best-of-N.
        width: M, a divisor of N.
        merge_duplicates: among beams of equal steps only the first competes, so that their places go to others.
    """

    def __init__(self, num_beams: int = 16, width: int = 4, merge_duplicates: bool = True) -> None:
        check_beams(num_beams, width)
        self.num_beams, self.width, self.merge_duplicates = num_beams, width, merge_duplicates

    @property
    def concurrency(self) -> int:
        """Return N."""
        return self.num_beams

    async def search(self, tree: Tree) -> Found:
        """Search until all beams that are kept have ended."""
        ended: list[Node] = []
        asked = [(tree.root, self.num_beams)]
        pool: list[Node] = []
        while asked and not tree.used_up:
            fresh = list(chain.from_iterable(await tree.expand(asked)))
            await self.look_ahead(tree, fresh)
            ended += [node for node in fresh if not node.is_open]
            pool += fresh
            kept = best(distinct(pool) if self.merge_duplicates else pool, self.num_beams // self.width)
            pool = [node for node in kept if not node.is_open]
            asked = [(node, self.width) for node in kept if node.is_open]
        return Found(ended)

    async def look_ahead(self, tree: Tree, nodes: Sequence[Node]) -> None:
        """Change the scores of new beams by what follows them; here by nothing."""


class Lookahead(BeamSearch):
    """Search with a beam whose values come from k greedy steps further.

    Snell et al. 2024, section 5.2: before a beam is scored, k steps of the most likely tokens are sampled from it, or
    fewer if the solution ends; the value of their end is the beam's. The steps are dropped then, but they cost as much
    as any other: N · (k + 1) steps in every round. With k = 0 this is :class:`BeamSearch`.

    Args:
        num_steps: k.
        num_beams: as of :class:`BeamSearch`.
        width: as of :class:`BeamSearch`.
        merge_duplicates: as of :class:`BeamSearch`; equal beams are looked ahead from once.
    """

    def __init__(
        self, num_steps: int = 1, num_beams: int = 16, width: int = 4, merge_duplicates: bool = True
    ) -> None:  # fmt: skip
        super().__init__(num_beams, width, merge_duplicates)
        at_least(0, num_steps=num_steps)
        self.num_steps = num_steps

    async def look_ahead(self, tree: Tree, nodes: Sequence[Node]) -> None:
        """Give each open beam the score of the end of its lookahead."""
        ends = {node: node for node in (distinct(nodes) if self.merge_duplicates else nodes) if node.is_open}
        for _ in range(self.num_steps):
            going = [(node, end) for node, end in ends.items() if end.is_open]
            if not going:
                break
            reached = await tree.expand([(end, 1) for _, end in going], "greedy", scored=False)
            ends |= {node: children[0] for (node, _), children in zip(going, reached, strict=True) if children}
        moved = [(node, end) for node, end in ends.items() if end is not node]
        await tree.score([end for _, end in moved])
        for node, end in moved:
            node.score, node.weight = end.score, end.weight
