"""Which examples go into a batch together: neighbours in length, in random order, split over ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

# Batches are cut from windows of so many batches that are sorted by length: little padding, and still random.
_WINDOW = 16


class LengthBatches:
    """A batch sampler: lists of indices, the same number of lists on every rank, no index twice.

    A pure function of (seed, epoch, rank), so an interrupted epoch is continued by skipping.

    Args:
        lengths: tokens of each example.
        batch_size: examples in a batch, at most.
        shuffle: a new random order each epoch (training); otherwise longest first, so that a batch that
            does not fit into memory fails at once.
        seed: of the order.
        rank: of this process ...
        world_size: ... among so many.

    Raises:
        ValueError: fewer examples than ranks.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, *,
        shuffle: bool, seed: int = 0, rank: int = 0, world_size: int = 1,
    ) -> None:  # fmt: skip
        if len(lengths) < world_size:
            raise ValueError(f"{len(lengths)} examples cannot be divided among {world_size} processes")
        self.lengths, self.batch_size, self.shuffle, self.seed = np.asarray(lengths), batch_size, shuffle, seed
        self.rank, self.world_size, self.epoch = rank, world_size, 0
        # As many batches on every rank: with sharded parameters a rank that stops early hangs the others.
        batches = -(-len(lengths) // batch_size)
        self._num_batches = min(-(-batches // world_size) * world_size, len(lengths) // world_size * world_size)

    @property
    def sampler(self) -> LengthBatches:
        """Lightning announces the epoch to ``batch_sampler.sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the random order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._num_batches // self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches()
        yield from (batch.tolist() for batch in batches[self.rank :: self.world_size])

    def _batches(self) -> list[np.ndarray]:
        if not self.shuffle:
            return np.array_split(np.argsort(-self.lengths, kind="stable"), self._num_batches)
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        window = self.batch_size * _WINDOW
        pieces = [order[i : i + window] for i in range(0, len(order), window)]
        ordered = np.concatenate([piece[np.argsort(self.lengths[piece], kind="stable")] for piece in pieces])
        batches = np.array_split(ordered, self._num_batches)
        return [batches[i] for i in rng.permutation(self._num_batches)]
