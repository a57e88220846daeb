"""Decide which prefixes are completed how often, and label them.

Pure: no engine is used here. A strategy is asked in rounds. Each round it sees the counts of all completions so far,
and names the prefixes to complete next; when it names none, the steps are labelled. So its decisions, and the labels,
depend only on the completions, not on the order in which an engine returns them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sampling.labelling.step_tree import Node
from stepverify.records import InputError, StepLabel

Ask = tuple[Node, int]
"""Pair a prefix with the number of completions to sample."""


@dataclass(slots=True)
class Paths:
    """Hold what a strategy knows of one problem.

    Attributes:
        root: the trie of the steps to be labelled.
        paths: for each solution its prefixes, and whether its final answer is correct.
        passing: completions of a prefix count for the longer prefixes that they pass through.
    """

    root: Node
    paths: Sequence[tuple[Sequence[Node], bool]]
    passing: bool = False


class Strategy(ABC):
    """Choose prefixes to complete in rounds, and label them by their counts."""

    def identity(self) -> dict[str, Any]:
        """Return what decides the labels, for the manifest."""
        return {"strategy": type(self).__name__} | asdict(self)  # type: ignore[call-overload]

    @abstractmethod
    def ask(self, problem: Paths) -> list[Ask]:
        """Choose what to sample next, the most informative prefix first.

        Returns nothing when all labels are settled.
        """

    def conclude(self, problem: Paths) -> Callable[[Node], StepLabel | None]:
        """Return a function from prefix to label; None for an unknown label."""
        return counted


def counted(node: Node) -> StepLabel | None:
    """Return the counts of a prefix as a label; None without completions."""
    return StepLabel(num_correct=node.correct, num_rollouts=node.total) if node.total else None


def informative(node: Node) -> float:
    """Return how informative one more completion of a prefix is.

    That is the variance of the prefix's value, times the number of solutions that pass through it. The value is taken
    to be distributed as Beta(1 + correct, 1 + incorrect), uniform before anything is known.
    """
    a, b = 1 + node.correct, 1 + node.total - node.correct
    return len(node.solutions) * a * b / ((a + b) ** 2 * (a + b + 1))


def confidence_sequence(correct: int, total: int, error: float) -> tuple[float, float]:
    """Compute an interval for a probability, valid after every sample.

    With probability 1 - ``error`` at least, *all* intervals of a growing sequence of samples contain the true
    probability, so one may stop at any time, even because of the interval. It is the set in which the posterior density
    under a uniform prior exceeds ``error`` (the prior-posterior ratio is a martingale, so Ville's inequality holds:
    Waudby-Smith and Ramdas 2020, "Confidence sequences for sampling without replacement", section 2).

    >>> [round(bound, 3) for bound in confidence_sequence(8, 8, 0.05)]
    [0.522, 1.0]
    """
    log_norm = math.lgamma(total + 2) - math.lgamma(correct + 1) - math.lgamma(total - correct + 1) - math.log(error)

    def inside(p: float) -> bool:
        parts = ((correct, p), (total - correct, 1 - p))
        return log_norm + sum(n * (math.log(q) if q > 0 else -math.inf) for n, q in parts if n) > 0

    def border(within: float, beyond: float) -> float:
        if inside(beyond):
            return beyond
        for _ in range(40):
            middle = (within + beyond) / 2
            within, beyond = (middle, beyond) if inside(middle) else (within, middle)
        return within

    mode = correct / total if total else 0.5
    return border(mode, 0.0), border(mode, 1.0)


@dataclass(frozen=True)
class Exhaustive(Strategy):
    """Complete every prefix n times (Math-Shepherd: Wang et al. 2023, section 3.3).

    If completions count for longer prefixes, shorter prefixes are completed first and only missing completions are
    sampled. The numbers sampled then depend on where completions went and not on whether they were correct, so correct
    / total stays an unbiased estimate of a prefix's value.

    Attributes:
        num_rollouts: completions per prefix.
    """

    num_rollouts: int = 8

    def __post_init__(self) -> None:
        _at_least(1, num_rollouts=self.num_rollouts)

    def ask(self, problem: Paths) -> list[Ask]:
        """Return the missing completions of every prefix.

        If completions count for longer prefixes: only of the shortest prefixes that lack some.
        """
        missing = [n for n in problem.root.nodes() if n.total < self.num_rollouts]
        if problem.passing:
            unknown = set(map(id, missing))
            missing = [n for n in missing if not any(id(a) in unknown for a in n.ancestors())]
        return _sorted((n, self.num_rollouts - n.total) for n in missing)


@dataclass(frozen=True)
class EarlyStop(Strategy):
    """Complete prefixes in rounds until their labels are settled.

    ``threshold: 0`` (a prefix is correct if any completion is, Math-Shepherd's hard label): settled by the first
    correct completion. The labels are exactly those of :class:`Exhaustive` with ``num_rollouts: max_rollouts``, from a
    subset of the same completions. A prefix of value v is called incorrect with probability (1 - v) ** max_rollouts.

    ``threshold: t`` above 0 (correct if the value is above t): settled when the confidence sequence lies on one side of
    t; the probability of an error among labels settled in this way is at most ``error``, whatever the value.

    ``width`` (soft labels): settled when the confidence sequence is at most this wide.

    Stopping depends on the outcomes, so correct / total is a biased estimate: too high with threshold 0. The bias of a
    soft label lies within the interval; use :class:`Exhaustive` for unbiased counts.

    Attributes:
        max_rollouts: largest number of completions per prefix; a label that is not settled by then keeps its counts.
        round_size: completions per prefix and round.
        threshold: see above; a share in [0, 1).
        width: see above; None for hard labels.
        error: probability of an error, see above.
    """

    max_rollouts: int = 8
    round_size: int = 2
    threshold: float = 0.0
    width: float | None = None
    error: float = 0.05

    def __post_init__(self) -> None:
        _at_least(1, max_rollouts=self.max_rollouts, round_size=self.round_size)
        if not 0 <= self.threshold < 1:
            raise InputError(f"threshold: expected a share from 0 to below 1, got {self.threshold}")
        if self.width is not None and (self.threshold or not 0 < self.width < 1):
            raise InputError(f"width: expected above 0 and below 1, without a threshold, got {self.width}")
        if not 0 < self.error < 1:
            raise InputError(f"error: expected above 0 and below 1, got {self.error}")

    def settled(self, node: Node) -> bool:
        """Tell whether a prefix needs no more completions."""
        if node.total >= self.max_rollouts:
            return True
        if not self.threshold and self.width is None:
            return node.correct > 0
        low, high = confidence_sequence(node.correct, node.total, self.error)
        if self.width is not None:
            return high - low <= self.width
        return low > self.threshold or high <= self.threshold

    def ask(self, problem: Paths) -> list[Ask]:
        """Return one round of completions for every unsettled prefix."""
        open_nodes = (n for n in problem.root.nodes() if not self.settled(n))
        return _sorted((n, min(self.round_size, self.max_rollouts - n.total)) for n in open_nodes)


@dataclass(frozen=True)
class BinarySearch(Strategy):
    """Find the first incorrect step of every incorrect solution by bisection.

    This is OmegaPRM's search (Luo et al. 2024, section 3.2). A prefix is correct if it can be completed. If it can, so
    can all shorter ones; if it cannot, no longer one can: so of m steps about log2(m) are tried. What is known of one
    solution's prefixes holds for every other solution that shares them, and the prefixes of a correct solution are
    correct: they need no completion.

    Prefixes that were tried keep their counts. The others get the rating that follows, 1 or -1; steps after the first
    incorrect one are incorrect. Read these as hard labels: as soft ones, tried and inferred steps would mix.

    Attributes:
        num_rollouts: completions without a correct one after which a prefix is incorrect.
        round_size: completions per prefix and round.
    """

    num_rollouts: int = 8
    round_size: int = 2

    def __post_init__(self) -> None:
        _at_least(1, num_rollouts=self.num_rollouts, round_size=self.round_size)

    def ask(self, problem: Paths) -> list[Ask]:
        """Return a round for the middle unknown prefix of each incorrect solution."""
        known = self._verdicts(problem)
        middles: dict[int, Node] = {}
        for path, correct in problem.paths:
            unknown = [n for n in path if known.get(id(n)) is None]
            if unknown and not correct:
                begun = (n for n in unknown if n.sampled)  # in an earlier round, with another middle
                middle = next(begun, unknown[len(unknown) // 2])
                middles[id(middle)] = middle
        return _sorted((n, min(self.round_size, self.num_rollouts - n.total)) for n in middles.values())

    def conclude(self, problem: Paths) -> Callable[[Node], StepLabel | None]:
        """Return counts if they agree with the verdict, else the verdict."""
        known = self._verdicts(problem)

        def label(node: Node) -> StepLabel | None:
            verdict = known.get(id(node))
            if node.total and verdict in (None, node.correct > 0):
                return counted(node)
            return None if verdict is None else StepLabel(rating=1 if verdict else -1)

        return label

    def _verdicts(self, problem: Paths) -> dict[int, bool]:
        """Return node → whether it can be completed, where that is known."""
        nodes = list(problem.root.nodes())
        possible = {id(n) for path, correct in problem.paths if correct for n in path}
        for node in reversed(nodes):  # children before their parent
            if node.correct or any(id(child) in possible for child in node.children.values()):
                possible.add(id(node))
        verdicts = dict.fromkeys(possible, True)
        for node in nodes:  # a parent before its children
            if id(node) not in possible:
                lost = node.parent is not None and verdicts.get(id(node.parent)) is False
                if lost or node.total >= self.num_rollouts:
                    verdicts[id(node)] = False
        return verdicts


def _sorted(asks: Iterable[Ask]) -> list[Ask]:
    return sorted(asks, key=lambda ask: -informative(ask[0]))


def _at_least(least: int, **values: int) -> None:
    for key, value in values.items():
        if value < least:
            raise InputError(f"{key}: expected >= {least}, got {value}")
