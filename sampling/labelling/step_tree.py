"""Build the trie of step prefixes of a problem's solutions.

First steps that solutions share are held once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Node:
    """Hold one distinct prefix of steps.

    Attributes:
        step: the final step of the prefix; empty at the root.
        parent: the prefix without this step; None at the root.
        children: next step → longer prefix.
        solutions: ids of the solutions that begin with this prefix.
        sampled: number of completions sampled from here.
        total: number of known completions from here: those sampled, and others that pass through (see
            :class:`sampling.labelling.Rollouts`) ...
        correct: ... and how many of them reached the correct answer.
        refused: whether a server has refused to complete it.
    """

    step: str = ""
    parent: Node | None = None
    children: dict[str, Node] = field(default_factory=dict)
    solutions: list[str] = field(default_factory=list)
    sampled: int = 0
    total: int = 0
    correct: int = 0
    refused: bool = False

    def steps(self) -> tuple[str, ...]:
        """Return the steps of the prefix."""
        return (*self.parent.steps(), self.step) if self.parent else ()

    def follow(self, steps: Iterable[str]) -> Iterator[Node]:
        """Yield the nodes below that ``steps`` pass through, in order.

        Ends where the steps leave the tree.
        """
        node: Node | None = self
        for step in steps:
            if node is None or (node := node.children.get(step)) is None:
                return
            yield node

    def ancestors(self) -> Iterator[Node]:
        """Yield the nodes above, the nearest first, without the root."""
        node = self.parent
        while node is not None and node.parent is not None:
            yield node
            node = node.parent

    def nodes(self) -> Iterator[Node]:
        """Yield all nodes below, a parent before its children."""
        stack = list(reversed(self.children.values()))
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children.values()))

    def count(self, steps: Iterable[str], *, correct: bool) -> None:
        """Count a completion from here at every node that it passes through.

        Args:
            steps: the steps of the completion.
            correct: whether it reached the correct answer.
        """
        for node in (self, *self.follow(steps)):
            node.total += 1
            node.correct += correct


def build(paths: Iterable[tuple[str, list[str]]]) -> Node:
    """Build the trie of ``(solution id, steps)``, and return its root.

    Steps are compared as text.
    """
    root = Node()
    for solution_id, steps in paths:
        node = root
        node.solutions.append(solution_id)
        for step in steps:
            node = node.children.setdefault(step, Node(step, node))
            node.solutions.append(solution_id)
    return root
