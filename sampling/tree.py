"""The trie of step prefixes: all solutions of one problem, with shared first steps held once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Node:
    """One distinct prefix of steps.

    Attributes:
        step: the last step of the prefix; empty at the root.
        children: next step → the longer prefix.
        solutions: ids of the solutions that pass through here.
    """

    step: str = ""
    children: dict[str, Node] = field(default_factory=dict)
    solutions: list[str] = field(default_factory=list)


def build(paths: Iterable[tuple[str, list[str]]]) -> Node:
    """The trie of ``(solution id, steps)``; steps are compared as text."""
    root = Node()
    for solution_id, steps in paths:
        node = root
        node.solutions.append(solution_id)
        for step in steps:
            node = node.children.setdefault(step, Node(step))
            node.solutions.append(solution_id)
    return root


def prefixes(root: Node) -> Iterator[tuple[str, ...]]:
    """Every distinct non-empty prefix, a parent before its children."""
    stack: list[tuple[Node, tuple[str, ...]]] = [(root, ())]
    while stack:
        node, path = stack.pop()
        if path:
            yield path
        stack.extend((child, (*path, step)) for step, child in reversed(node.children.items()))
