"""Search by particle filtering."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Literal

import numpy as np

from sampling.search.base import Found, SearchStrategy, at_least
from sampling.search.tree import Node, Tree
from stepverify.records import InputError

_EDGE = 1e-6  # values have six decimals: 0 and 1 stand for what is beyond them

Resampling = Literal["systematic", "multinomial", "residual"]


class ParticleFiltering(SearchStrategy):
    """Resample N particles by the verifier's values after every step.

    Puri et al. 2025 ("A probabilistic inference approach to inference-time scaling"): each of N particles is continued
    by one step, and N particles are then sampled from them with replacement, in proportion to the softmax of the
    values' logits, which are their odds. Copies of a particle are continued differently.

    Where this differs from the public implementation: the odds are raised to 1 / ``temperature``; resampling is
    systematic, which changes nothing if all values are equal (``multinomial`` and ``residual`` are the others); a
    solution that has ended stays a particle, and counts once among the results however often it was copied.

    Args:
        num_particles: N.
        temperature: large ones flatten the weights.
        resampling: how particles are sampled by their weights.
    """

    def __init__(
        self, num_particles: int = 16, temperature: float = 1.0, resampling: Resampling = "systematic"
    ) -> None:
        at_least(1, num_particles=num_particles)
        if not temperature > 0:
            raise InputError(f"strategy.temperature: expected above 0, got {temperature}")
        self.num_particles, self.temperature, self.resampling = num_particles, temperature, resampling

    @property
    def concurrency(self) -> int:
        """Return N."""
        return self.num_particles

    async def search(self, tree: Tree) -> Found:
        """Search until every particle has ended."""
        particles = [tree.root] * self.num_particles
        ended: dict[str, Node] = {}
        round = 0
        while any(node.is_open for node in particles) and not tree.used_up:
            counts = Counter(node for node in particles if node.is_open)
            fresh = await tree.expand(list(counts.items()))
            moved = [node for node in particles if not node.is_open] + list(chain.from_iterable(fresh))
            ended |= {node.id: node for node in moved if not node.is_open}
            if not moved:
                break
            chosen = resample(
                self.weights(moved), self.num_particles, tree.random("resampling", round), self.resampling
            )
            particles, round = [moved[i] for i in chosen], round + 1
        return Found(list(ended.values()))

    def weights(self, nodes: list[Node]) -> np.ndarray:
        """Return the particles' weights, shape (N,), which sum to 1."""
        values = np.clip([node.weight for node in nodes], _EDGE, 1 - _EDGE)
        logits = (np.log(values) - np.log1p(-values)) / self.temperature
        weights = np.exp(logits - logits.max())
        found: np.ndarray = weights / weights.sum()
        return found


def resample(weights: np.ndarray, number: int, random: np.random.Generator, how: Resampling) -> list[int]:
    """Sample indices in proportion to weights, in ascending order.

    With every method the expected number of index i is ``number`` · ``weights[i]``. Systematic resampling has one
    random number, and takes floor or ceiling of that; residual resampling takes the floor, and the rest at random.

    Args:
        weights: (M,), sum 1.
        number: how many.
        random: random numbers.
        how: the method.
    """
    if how == "multinomial":
        return sorted(random.choice(len(weights), number, p=weights).tolist())
    expected = number * weights
    if how == "systematic":
        places = (random.random() + np.arange(number)) / number
        return np.minimum(np.searchsorted(np.cumsum(weights), places, side="right"), len(weights) - 1).tolist()
    whole = np.floor(expected + 1e-9).astype(int)
    rest = number - int(whole.sum())
    left = np.maximum(expected - whole, 0)
    extra = random.choice(len(weights), rest, p=left / left.sum()).tolist() if rest else []
    return sorted([*np.repeat(np.arange(len(weights)), whole).tolist(), *extra])
