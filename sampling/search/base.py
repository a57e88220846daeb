"""Define the contract of search strategies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sampling.search.tree import Node, Tree
from stepverify.records import InputError


@dataclass(slots=True)
class Found:
    """Hold the solutions of a search.

    Attributes:
        nodes: every solution that the search has ended with, each once, also those that were cut off.
        choice: what the strategy itself selects; None leaves it to the rules.
        independent: the nodes are independent samples, so that fewer of them are a smaller search.
        values: for a policy, see :class:`~sampling.search.records.SearchResult`.
        strategy: name of the strategy that a policy chose.
    """

    nodes: list[Node]
    choice: Node | None = None
    independent: bool = False
    values: list[float] = field(default_factory=list)
    strategy: str = ""


class SearchStrategy(ABC):
    """Search solutions of a problem: a coroutine over engine and verifier.

    A strategy sees one problem as a :class:`~sampling.search.Tree`, and decides by the values of its nodes alone. It
    keeps no state of its own between problems: many are searched at the same time.

    Attributes:
        needs_step_values: it needs the values of prefixes, which an outcome verifier does not give.
    """

    needs_step_values: bool = True

    @property
    @abstractmethod
    def concurrency(self) -> int:
        """Return how many completions are asked for at the same time."""

    @abstractmethod
    async def search(self, tree: Tree) -> Found:
        """Search solutions of the problem at the root of a tree."""

    def identity(self) -> dict[str, Any]:
        """Return class and settings, for the manifest and for policies.

        The attributes of a strategy are the arguments of its class; one of your own is named with its module.
        """
        own = type(self).__module__.startswith(f"{__package__}.")
        name = type(self).__name__ if own else f"{type(self).__module__}.{type(self).__qualname__}"
        return {"strategy": name} | vars(self)


def at_least(least: int, **values: int) -> None:
    """Refuse settings below a least number.

    Raises:
        InputError: naming the key.
    """
    for key, value in values.items():
        if value < least:
            raise InputError(f"strategy.{key}: expected >= {least}, got {value}")


def check_beams(num_beams: int, width: int) -> None:
    """Refuse numbers below 1, and a width that does not divide the number of beams.

    Raises:
        InputError: naming the key.
    """
    at_least(1, num_beams=num_beams, width=width)
    if num_beams % width:
        raise InputError(f"strategy.width: {width}: expected a divisor of num_beams, which is {num_beams}")


def best(nodes: Iterable[Node], number: int) -> list[Node]:
    """Return the nodes of highest score, the first of equals, in descending order."""
    return sorted(nodes, key=lambda node: -node.score)[:number]


def distinct(nodes: Iterable[Node]) -> list[Node]:
    """Return the first of all nodes with the same steps, in order."""
    first: dict[tuple[str, ...], Node] = {}
    for node in nodes:
        first.setdefault(node.steps, node)
    return list(first.values())
