"""Group examples into batches, order them and split them over ranks.

All of it is a pure function of seed and epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from torch.utils.data import DistributedSampler

if TYPE_CHECKING:
    from stepverify.data.comparisons import Comparisons

# Batches per window of the random order: enough for similar lengths or full packs, few enough to mix at random.
WINDOW = 16
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """Describe one batch.

    Attributes:
        indices: indices of its examples.
        loss_denominators: divisors of its summed loss, for scored positions and for LM positions: the total weight of
            all batches in the same optimizer step on all ranks, divided by the number of those batches. Gradients are
            averaged over ranks and accumulated batches, so every position counts equally however the batches are split.
    """

    indices: list[int]
    loss_denominators: tuple[float, float]


class Batching(Protocol):
    """Divide all examples into batches."""

    def __call__(self, rng: np.random.Generator | None) -> list[np.ndarray]:
        """Return batches of indices: shuffled, or the cheapest ones without ``rng``."""
        ...

    def most_tokens(self) -> int:
        """Return the tokens of the largest batch that any order makes."""
        ...


class LengthBuckets:
    """Group a fixed number of solutions of similar length into each batch.

    Args:
        lengths: tokens of each example.
        batch_size: solutions in a batch, at most.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, batch_size: int) -> None:
        self.lengths, self.batch_size = np.asarray(lengths), batch_size

    def __call__(self, rng: np.random.Generator | None) -> list[np.ndarray]:
        """Shuffle, then sort windows of the order by length."""
        if rng is None:
            ordered = np.argsort(-self.lengths, kind="stable")
        else:
            order = rng.permutation(len(self.lengths))
            window = self.batch_size * WINDOW
            pieces = [order[i : i + window] for i in range(0, len(order), window)]
            ordered = np.concatenate([piece[np.argsort(self.lengths[piece], kind="stable")] for piece in pieces])
        return np.array_split(ordered, -(-len(ordered) // self.batch_size))

    def most_tokens(self) -> int:
        """Return the tokens of the ``batch_size`` longest solutions."""
        return int(np.sort(self.lengths)[-self.batch_size :].sum())


class PaddedRows:
    """Make batches within a budget of tokens, padding included.

    For models that compute each solution as a row of its own.

    Args:
        lengths: tokens of each example.
        budget: rows times the longest row, at most; a longer solution is a batch by itself.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, budget: int) -> None:
        self.lengths, self.budget = np.asarray(lengths), budget

    def __call__(self, rng: np.random.Generator | None) -> list[np.ndarray]:
        """Shuffle, then sort windows of the order by length."""
        order = np.arange(len(self.lengths)) if rng is None else rng.permutation(len(self.lengths))
        window = len(order) if rng is None else max(1, round(WINDOW * self.budget / self.lengths.mean()))
        batches: list[np.ndarray] = []
        for at in range(0, len(order), window):
            piece = order[at : at + window]
            piece = piece[np.argsort(-self.lengths[piece], kind="stable")]
            while len(piece):
                size = max(1, self.budget // int(self.lengths[piece[0]]))
                batches.append(piece[:size])
                piece = piece[size:]
        return batches

    def most_tokens(self) -> int:
        """Return the budget, padding included."""
        return self.budget


class BatchSampler(DistributedSampler[Plan]):
    """Sample equally many batches on every rank and in every epoch.

    No example occurs twice in an epoch.

    Batches that different ranks compute at the same time cost about the same. The order is a pure function of (seed,
    epoch, rank), so an interrupted epoch is resumed by skipping batches. Being a DistributedSampler, it is not wrapped
    in another one, as Lightning does with all other samplers unless ``trainer.use_distributed_sampler`` is false.

    Args:
        maker: divides the examples into batches.
        costs: (E,) tokens of each example, to balance ranks.
        weights: (E, 2) weight of each example's scored positions and LM positions in the loss.
        shuffle: a new random order each epoch (training); otherwise the largest batches first, so that a batch that
            does not fit into memory fails at once.
        seed: seed of the order.
        rank: rank of this process.
        num_ranks: number of processes.
        accumulate: batches per optimizer step on each rank.
        comparisons: between solutions of one problem. Their number replaces the weight of scored positions, and batches
            that must be split are split between problems, if that is possible.

    Raises:
        ValueError: fewer examples than ranks.
    """

    def __init__(
        self, maker: Batching, costs: Sequence[int] | np.ndarray, weights: np.ndarray, *,
        shuffle: bool, seed: int = 0, rank: int = 0, num_ranks: int = 1, accumulate: int = 1,
        comparisons: Comparisons | None = None,
    ) -> None:  # fmt: skip
        if len(costs) < num_ranks:
            raise ValueError(f"{len(costs)} examples cannot be divided among {num_ranks} processes")
        super().__init__(costs, num_ranks, rank, shuffle, seed)  # type: ignore[arg-type] # a length is all it takes
        self.maker, self.costs, self.weights = maker, np.asarray(costs), weights
        self.num_ranks, self.accumulate, self.comparisons = num_ranks, accumulate, comparisons
        # Each rank needs equally many batches: with sharded parameters a rank that stops early hangs the others.
        # Each epoch too, as trainer and learning rate schedule rely on it.
        count = len(maker(self._rng(0, 0)))
        self.num_batches = min(-(-count // num_ranks) * num_ranks, len(costs) // num_ranks * num_ranks)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the random order."""
        self.epoch = epoch

    def largest(self) -> Plan:
        """Return the batch with the most tokens in this epoch.

        It may be any rank's.

        Its loss denominators are 1.
        """
        return Plan(max(self.batches(), key=lambda batch: self.costs[batch].sum()).tolist(), (1.0, 1.0))

    def __len__(self) -> int:
        return self.num_batches // self.num_ranks

    def __iter__(self) -> Iterator[Plan]:
        steps = self._steps()
        for at in range(0, len(steps), self.accumulate):
            window = steps[at : at + self.accumulate]
            total = np.sum([self._weight(batch) for step in window for batch in step], axis=0)
            # An epoch's last window may be shorter, but is still divided by the full number.
            loss_denominators = total / (self.accumulate * self.num_ranks)
            loss_denominators[loss_denominators == 0] = 1.0  # no positions of this kind
            for step in window:
                yield Plan(step[self.rank].tolist(), (float(loss_denominators[0]), float(loss_denominators[1])))

    def _weight(self, batch: np.ndarray) -> np.ndarray:
        weight: np.ndarray = self.weights[batch].sum(0)
        if self.comparisons is not None:
            weight[0] = self.comparisons.count(batch)
        return weight

    def _rng(self, epoch: int, attempt: int) -> np.random.Generator | None:
        return np.random.default_rng([self.seed, epoch, attempt]) if self.shuffle else None

    def _steps(self) -> list[list[np.ndarray]]:
        """Return groups of batches that all ranks compute at the same time."""
        batches = self.batches()
        cost = np.array([self.costs[batch].sum() for batch in batches])
        batches = [batches[i] for i in np.argsort(-cost, kind="stable")]
        steps = [batches[i : i + self.num_ranks] for i in range(0, len(batches), self.num_ranks)]
        rng = self._rng(self.epoch, _ATTEMPTS)
        return steps if rng is None else [steps[i] for i in rng.permutation(len(steps))]

    def batches(self) -> list[np.ndarray]:
        """Make exactly ``num_batches`` batches, those of this epoch on all ranks.

        If there are fewer, the largest are split in half.
        """
        attempts = (self.maker(self._rng(self.epoch, attempt)) for attempt in range(_ATTEMPTS))
        batches = next((b for b in attempts if len(b) <= self.num_batches), None) or self.maker(self._rng(0, 0))
        while len(batches) < self.num_batches:
            if self.comparisons is None:
                largest = max(range(len(batches)), key=lambda i: len(batches[i]))
                halves = np.array_split(batches[largest], 2)
            else:
                largest, halves = self.comparisons.split(batches)
            batches[largest : largest + 1] = halves
        if len(batches) > self.num_batches:  # fewer batches fit than the maker made
            batches = np.array_split(np.concatenate(batches), self.num_batches)
        return batches
