"""The trie of step prefixes: all solutions of one problem, with shared first steps held once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Node:
    """One distinct prefix of steps.

    Attributes:
        step: the last step of the prefix; empty at the root.
        parent: the prefix without it; None at the root.
        children: next step → the longer prefix.
        solutions: ids of the solutions that pass through here.
        sampled: completions that were sampled from here.
        total: completions from here that are known: those sampled, and others that came by (see
            :class:`sampling.labelling.Rollouts`) ...
        correct: ... and how many of them reached the correct answer.
    """

    step: str = ""
    parent: Node | None = None
    children: dict[str, Node] = field(default_factory=dict)
    solutions: list[str] = field(default_factory=list)
    sampled: int = 0
    total: int = 0
    correct: int = 0

    def steps(self) -> tuple[str, ...]:
        """The prefix."""
        return (*self.parent.steps(), self.step) if self.parent else ()

    def follow(self, steps: Iterable[str]) -> Iterator[Node]:
        """The nodes below this one that ``steps`` pass through, until they leave the tree."""
        node: Node | None = self
        for step in steps:
            if node is None or (node := node.children.get(step)) is None:
                return
            yield node

    def ancestors(self) -> Iterator[Node]:
        """The nodes above, the nearest first; without the root."""
        node = self.parent
        while node is not None and node.parent is not None:
            yield node
            node = node.parent

    def nodes(self) -> Iterator[Node]:
        """All nodes below, a parent before its children."""
        stack = list(reversed(self.children.values()))
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children.values()))

    def count(self, steps: Iterable[str], *, correct: bool) -> None:
        """One completion that goes on from here by ``steps``: it is one of every node that it passes through."""
        for node in (self, *self.follow(steps)):
            node.total += 1
            node.correct += correct


def build(paths: Iterable[tuple[str, list[str]]]) -> Node:
    """The trie of ``(solution id, steps)``; steps are compared as text. Gives the root."""
    root = Node()
    for solution_id, steps in paths:
        node = root
        node.solutions.append(solution_id)
        for step in steps:
            node = node.children.setdefault(step, Node(step, node))
            node.solutions.append(solution_id)
    return root
