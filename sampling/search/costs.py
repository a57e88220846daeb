"""Count the tokens of a search: those that are computed, and those that caches make unnecessary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampling.search.records import Cost

if TYPE_CHECKING:
    from sampling.search.tree import Node
    from stepverify.records import Problem

Steps = tuple[str, ...]


@dataclass(frozen=True)
class Pricing:
    """Describe what tokens cost.

    Attributes:
        prompt_tokens: number of tokens of a problem's prompt; None if it is unknown.
        verifier_tokens: number of tokens that the verifier reads of a problem and some of its steps; None if unknown.
        engine_caches: the engine has a prefix cache: it reads a prompt once, and no sampled token again.
        verifier_caches: the verifier keeps the prefixes that it has read.
        engine_parameters: None if unknown, as of a server.
        verifier_parameters: None if unknown.
    """

    prompt_tokens: Callable[[Problem], int | None]
    verifier_tokens: Callable[[Problem, Sequence[str]], int | None]
    engine_caches: bool = False
    verifier_caches: bool = False
    engine_parameters: int | None = None
    verifier_parameters: int | None = None


class CostCounter:
    """Count the cost of one problem's search.

    All numbers follow from what was asked for, so that a resumed search, or one that reuses expansions, costs what it
    would have cost alone. What the caches of engine and verifier really held is in the stage's summary.

    Args:
        pricing: what tokens cost.
        problem: the problem.

    Attributes:
        cost: so far.
    """

    def __init__(self, pricing: Pricing, problem: Problem) -> None:
        self.cost = Cost()
        self._pricing, self._problem = pricing, problem
        prompt = pricing.prompt_tokens(problem)
        self._prompt, self._known = prompt or 0, prompt is not None
        self._prompt_read = False
        self._read: set[Steps] = set()
        self._lengths: dict[Steps, int] = {}

    def count_sampled(self, asked: Sequence[Node], groups: Sequence[Sequence[Node]]) -> None:
        """Count requests: each prompt is read once for all completions of a request, or not at all if it is cached."""
        for node, children in zip(asked, groups, strict=True):
            length = self._prompt + node.num_tokens
            computed = length
            if self._pricing.engine_caches:  # every token of the prefix has been sampled, or read as a prompt
                computed = 0 if self._prompt_read else self._prompt
            self._prompt_read = True
            self.cost.engine_calls += 1
            self.cost.prompt_tokens += computed
            self.cost.cached_prompt_tokens += length * len(children) - computed
            self.cost.generated_tokens += sum(child.num_tokens - node.num_tokens for child in children)

    def count_scored(self, nodes: Sequence[Node]) -> None:
        """Count one call of the verifier: prefixes that its texts share are read once."""
        wanted = {node.steps for node in nodes}
        parts = {steps[:i] for steps in wanted for i in range(len(steps) + 1)}
        fresh = parts - self._read if self._pricing.verifier_caches else parts
        computed = sum(self._length(part) - self._length(part[:-1]) * bool(part) for part in fresh)
        self.cost.verifier_calls += 1
        self.cost.verifier_tokens += computed
        self.cost.cached_verifier_tokens += sum(self._length(node.steps) for node in nodes) - computed
        self._read |= parts

    def _length(self, steps: Steps) -> int:
        if steps not in self._lengths:
            length = self._pricing.verifier_tokens(self._problem, steps)
            self._known &= length is not None
            self._lengths[steps] = length or 0
        return self._lengths[steps]

    def total(self) -> Cost:
        """Return the cost with its floating-point operations."""
        engine, verifier, cost = self._pricing.engine_parameters, self._pricing.verifier_parameters, self.cost
        if self._known and engine is not None and (verifier is not None or not cost.verifier_calls):
            cost.verifier_flops = 2.0 * (verifier or 0) * cost.verifier_tokens
            cost.flops = 2.0 * engine * (cost.generated_tokens + cost.prompt_tokens) + cost.verifier_flops
        return cost


def added(costs: Iterable[Cost]) -> Cost:
    """Add costs; the floating-point operations are unknown if any are."""
    total = Cost(flops=0.0, verifier_flops=0.0)
    for cost in costs:
        for name in Cost.__struct_fields__:
            before, more = getattr(total, name), getattr(cost, name)
            setattr(total, name, None if before is None or more is None else before + more)
    return total
