"""Which examples go into a batch together, in which order, split over ranks: a pure function of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch.utils.data import DistributedSampler

# Batches are made in windows of so many: alike in length or well packed, and still in random company.
WINDOW = 16
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """One batch.

    Attributes:
        indices: of its examples.
        loss_denominators: by how much its summed loss is divided, for positions and for LM positions: the weight of all
            batches that take part in the same optimizer step on all ranks, over the number of those batches. Gradients
            are averaged over ranks and accumulated batches, so every position weighs the same however it is split.
    """

    indices: list[int]
    loss_denominators: tuple[float, float]


class Batching(Protocol):
    """Divides all examples into batches."""

    def __call__(self, rng: np.random.Generator | None) -> list[np.ndarray]:
        """Batches of indices in random company, or without ``rng`` in that which costs least."""
        ...

    def most_tokens(self) -> int:
        """Tokens of the largest batch that any order can make."""
        ...


class LengthBuckets:
    """Batches of a number of solutions that are alike in length.

    Args:
        lengths: tokens of each example.
        batch_size: solutions in a batch, at most.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, batch_size: int) -> None:
        self.lengths, self.batch_size = np.asarray(lengths), batch_size

    def __call__(self, rng: np.random.Generator | None) -> list[np.ndarray]:
        """Cut windows of a random order, each sorted by length."""
        if rng is None:
            ordered = np.argsort(-self.lengths, kind="stable")
        else:
            order = rng.permutation(len(self.lengths))
            window = self.batch_size * WINDOW
            pieces = [order[i : i + window] for i in range(0, len(order), window)]
            ordered = np.concatenate([piece[np.argsort(self.lengths[piece], kind="stable")] for piece in pieces])
        return np.array_split(ordered, -(-len(ordered) // self.batch_size))

    def most_tokens(self) -> int:
        """Of the longest solutions."""
        return int(np.sort(self.lengths)[-self.batch_size :].sum())


class PaddedRows:
    """Make batches of a number of tokens, padding included.

    For models that read each solution as a row.

    Args:
        lengths: tokens of each example.
        budget: rows times the longest one, at most; a longer solution is a batch by itself.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, budget: int) -> None:
        self.lengths, self.budget = np.asarray(lengths), budget

    def __call__(self, rng: np.random.Generator | None) -> list[np.ndarray]:
        """Cut windows of a random order, each sorted by length."""
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
        """The budget, padding included."""
        return self.budget


class BatchSampler(DistributedSampler[Plan]):
    """A sampler of plans: the same number on every rank and in every epoch, no example twice.

    Being a DistributedSampler it is never divided among the ranks once more, which Lightning does with any other
    unless ``trainer.use_distributed_sampler`` is false.

    Batches that are computed at the same time on different ranks cost about the same. As a pure function of
    (seed, epoch, rank) an interrupted epoch is continued by skipping.

    Args:
        maker: divides the examples into batches.
        costs: (E,) tokens of each example, to balance ranks.
        weights: (E, 2) weight of each example's positions and LM positions in the loss.
        shuffle: a new random order each epoch (training); otherwise dearest first, so that a batch that does not
            fit into memory fails at once.
        seed: of the order.
        rank: of this process ...
        num_ranks: ... among so many.
        accumulate: batches on each rank that make one optimizer step.

    Raises:
        ValueError: fewer examples than ranks.
    """

    def __init__(
        self, maker: Batching, costs: Sequence[int] | np.ndarray, weights: np.ndarray, *,
        shuffle: bool, seed: int = 0, rank: int = 0, num_ranks: int = 1, accumulate: int = 1,
    ) -> None:  # fmt: skip
        if len(costs) < num_ranks:
            raise ValueError(f"{len(costs)} examples cannot be divided among {num_ranks} processes")
        super().__init__(costs, num_ranks, rank, shuffle, seed)  # type: ignore[arg-type] # a length is all it takes
        self.maker, self.costs, self.weights = maker, np.asarray(costs), weights
        self.num_ranks, self.accumulate = num_ranks, accumulate
        # Each rank reads as many batches: with sharded parameters one that stops early hangs the others.
        # Each epoch has as many, too: trainer and learning rate schedule count on it.
        count = len(maker(self._rng(0, 0)))
        self.num_batches = min(-(-count // num_ranks) * num_ranks, len(costs) // num_ranks * num_ranks)

    def set_epoch(self, epoch: int) -> None:
        """Choose the random order of this epoch."""
        self.epoch = epoch

    def largest(self) -> Plan:
        """Return the batch of the most tokens in this epoch, on whichever rank; its loss_denominators are 1."""
        return Plan(max(self._batches(), key=lambda batch: self.costs[batch].sum()).tolist(), (1.0, 1.0))

    def __len__(self) -> int:
        return self.num_batches // self.num_ranks

    def __iter__(self) -> Iterator[Plan]:
        steps = self._steps()
        for at in range(0, len(steps), self.accumulate):
            window = steps[at : at + self.accumulate]
            total = sum(self.weights[batch].sum(0) for step in window for batch in step)
            # An epoch's last window may be shorter, and is divided by the full number all the same.
            loss_denominators = total / (self.accumulate * self.num_ranks)
            loss_denominators[loss_denominators == 0] = 1.0  # nothing of this kind is read
            for step in window:
                yield Plan(step[self.rank].tolist(), (float(loss_denominators[0]), float(loss_denominators[1])))

    def _rng(self, epoch: int, attempt: int) -> np.random.Generator | None:
        return np.random.default_rng([self.seed, epoch, attempt]) if self.shuffle else None

    def _steps(self) -> list[list[np.ndarray]]:
        """Batches, grouped into those that all ranks compute at the same time."""
        batches = self._batches()
        cost = np.array([self.costs[batch].sum() for batch in batches])
        batches = [batches[i] for i in np.argsort(-cost, kind="stable")]
        steps = [batches[i : i + self.num_ranks] for i in range(0, len(batches), self.num_ranks)]
        rng = self._rng(self.epoch, _ATTEMPTS)
        return steps if rng is None else [steps[i] for i in rng.permutation(len(steps))]

    def _batches(self) -> list[np.ndarray]:
        """Exactly ``num_batches``: where an epoch comes out shorter, the largest are halved."""
        attempts = (self.maker(self._rng(self.epoch, attempt)) for attempt in range(_ATTEMPTS))
        batches = next((b for b in attempts if len(b) <= self.num_batches), None) or self.maker(self._rng(0, 0))
        while len(batches) < self.num_batches:
            largest = max(range(len(batches)), key=lambda i: len(batches[i]))
            batches[largest : largest + 1] = np.array_split(batches[largest], 2)
        if len(batches) > self.num_batches:  # fewer examples than a full step of all ranks
            batches = np.array_split(np.concatenate(batches), self.num_batches)
        return batches
