"""Keep keys, values and scores of token paths, so that prefixes are read once over several calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from stepverify.data.tree import common_prefix


class Node:
    """Hold n tokens of a path, after those of ``parent``.

    Attributes:
        ids: their token ids.
        states: (n, F) keys and values of all layers.
        scores: (n,) probabilities after each token; None in an engine's cache.
        parent: the node before; None at the root.
        children: nodes after this one, by first token id.
    """

    __slots__ = ("children", "ids", "parent", "scores", "states")

    def __init__(self, ids: list[int], states: Tensor, scores: Tensor | None, parent: Node | None) -> None:
        self.ids, self.states, self.scores, self.parent = ids, states, scores, parent
        self.children: dict[int, Node] = {}

    @property
    def num_bytes(self) -> int:
        """Return the size of keys, values and scores."""
        return self.states.nbytes + (0 if self.scores is None else self.scores.nbytes)


class PrefixCache:
    """Keep token paths in a radix tree of bounded size; the least recently used are dropped first.

    A path is found to the last token that is known, wherever earlier paths ended (Zheng et al. 2024, section 3).

    Args:
        max_bytes: size of keys, values and scores, at most.

    Attributes:
        num_bytes: their size now.
        num_tokens: number of tokens in the tree.
        evicted_tokens: tokens dropped so far.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = self.num_tokens = self.evicted_tokens = 0
        self._root = Node([], torch.empty(0), None, None)
        # From the least to the most recently used; a node comes after its children, so the first one is a leaf.
        self._used = OrderedDict[Node, None]()

    def find(self, ids: Sequence[int]) -> list[tuple[Node, int]]:
        """Find the longest known prefix, and count it as used.

        Returns:
            Nodes along it, and the number of tokens in each that match: all but in the final one.
        """
        found: list[tuple[Node, int]] = []
        node, at = self._root, 0
        while at < len(ids) and (child := node.children.get(ids[at])) is not None:
            count = len(child.ids)
            if ids[at : at + count] != child.ids:
                count = common_prefix(child.ids, ids[at:])
            found.append((child, count))
            if count < len(child.ids):
                break
            node, at = child, at + count
        if found:
            self._touch(found[-1][0])
        return found

    def add(
        self, ids: list[int], first: int, rows: Tensor, states: Tensor, scores: Tensor | None = None
    ) -> None:  # fmt: skip
        """Add a path, and count it as used.

        Args:
            ids: T token ids.
            first: number of tokens at the start that were known; if some of these were dropped since, nothing is added.
            rows: (T - first,) rows of ``states`` and ``scores`` that belong to the other tokens.
            states: (L, F) keys and values of all layers.
            scores: (L,) probabilities, if there are any.
        """
        found = self.find(ids)
        known = sum(count for _, count in found)
        if known < first:
            return
        node = self._root
        if found:
            node, count = found[-1]
            if count < len(node.ids) and known < len(ids):
                node = self._split(node, count)
        if known < len(ids):
            own = rows[known - first :]
            values = None if scores is None else scores.index_select(0, own)
            child = Node(ids[known:], states.index_select(0, own), values, node)
            node.children[ids[known]] = child
            self.num_bytes += child.num_bytes
            self.num_tokens += len(child.ids)
            self._touch(child)
        self._evict()

    def clear(self) -> None:
        """Drop all paths."""
        self._evict(0)

    def _split(self, node: Node, count: int) -> Node:
        """Divide a node after ``count`` tokens; return the part before."""
        assert node.parent is not None
        scores = node.scores
        first, rest = (None, None) if scores is None else (scores[:count].clone(), scores[count:].clone())
        before = Node(node.ids[:count], node.states[:count].clone(), first, node.parent)
        node.parent.children[before.ids[0]] = before
        node.ids, node.parent = node.ids[count:], before
        node.states, node.scores = node.states[count:].clone(), rest
        before.children[node.ids[0]] = node
        return before

    def _touch(self, node: Node) -> None:
        while node.parent is not None:
            self._used[node] = None
            self._used.move_to_end(node)
            node = node.parent

    def _evict(self, most: int | None = None) -> None:
        while self.num_bytes > (self.max_bytes if most is None else most):
            node, _ = self._used.popitem(last=False)
            assert not node.children
            assert node.parent is not None
            del node.parent.children[node.ids[0]]
            self.num_bytes -= node.num_bytes
            self.num_tokens -= len(node.ids)
            self.evicted_tokens += len(node.ids)
