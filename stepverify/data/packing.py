"""Pack the solutions of a problem together, counting shared prefixes once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np

from stepverify.data.batching import WINDOW, PaddedRows
from stepverify.data.store import ExampleStore
from stepverify.data.tree import common_prefix, in_order, share


class PrefixPacks:
    """Make prefix packs: first-fit-decreasing bin packing over shuffled windows of problems.

    Args:
        sequences: token ids of each example; read once.
        groups: problem of each example, whose solutions share prefixes.
        budget: tokens in a batch, at most, with shared prefixes counted once; a longer sequence is a batch by itself.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], groups: Sequence[Hashable], budget: int) -> None:
        self.budget = budget
        self.bundles: list[np.ndarray] = []
        sizes: list[int] = []
        for together in _members(groups):
            for bundle, size in bundles([sequences[i] for i in together], self.budget):
                self.bundles.append(np.array([together[i] for i in bundle]))
                sizes.append(size)
        self.sizes = np.array(sizes)

    def __call__(self, rng: np.random.Generator | None) -> list[np.ndarray]:
        """Return the indices of each pack."""
        # Random even without rng, as packs are fuller when large and small bundles are mixed.
        order = (rng or np.random.default_rng(0)).permutation(len(self.sizes))
        window = max(1, round(WINDOW * self.budget / self.sizes.mean()))
        packs: list[np.ndarray] = []
        for at in range(0, len(order), window):
            piece = order[at : at + window]
            piece = piece[np.argsort(-self.sizes[piece], kind="stable")]
            packs += [np.concatenate([self.bundles[i] for i in pack]) for pack in self._first_fit(piece)]
        return packs

    def most_tokens(self) -> int:
        """Return the budget; shared prefixes count once."""
        return self.budget

    def _first_fit(self, pieces: np.ndarray) -> list[list[int]]:
        packs: list[list[int]] = []
        room = np.zeros(len(pieces), np.int64)
        for i in pieces:
            fits = room[: len(packs)] >= self.sizes[i]
            if fits.any():
                at = int(fits.argmax())
            else:
                at = len(packs)
                packs.append([])
                room[at] = self.budget
            packs[at].append(int(i))
            room[at] -= self.sizes[i]
        return packs


def to_score(
    sequences: Sequence[Sequence[int]], groups: Sequence[Hashable], budget: int, shared: bool
) -> list[np.ndarray]:
    """Divide sequences into batches for scoring.

    Args:
        sequences: token ids.
        groups: problem of each sequence, whose solutions share prefixes.
        budget: tokens in a batch, at most.
        shared: count shared prefixes once; otherwise sequences are rows, and padding counts too.

    Returns:
        Indices of each batch.
    """
    if shared:
        return PrefixPacks(sequences, groups, budget)(None)
    return PaddedRows([len(s) for s in sequences], budget)(None)


def bundles(sequences: Sequence[Sequence[int]], budget: int) -> list[tuple[list[int], int]]:
    """Divide a problem's sorted sequences into few bundles within the budget.

    Args:
        sequences: token ids.
        budget: tokens, with shared prefixes counted once.

    Returns:
        Indices and number of distinct tokens of each bundle; neighbours in the prefix tree stay together.
    """
    made: list[tuple[list[int], int]] = []
    before: Sequence[int] = ()
    for i in in_order(sequences):
        new = len(sequences[i]) - common_prefix(before, sequences[i])
        if made and made[-1][1] + new <= budget:
            made[-1] = ([*made[-1][0], i], made[-1][1] + new)
        else:
            made.append(([i], len(sequences[i])))
        before = sequences[i]
    return made


def count_once(examples: ExampleStore) -> None:
    """Divide the weight of each position among the examples that share it."""

    def times() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        for together in _members(examples.groups.tolist()):
            group = [examples[i] for i in together]
            paths = share([e.input_ids for e in group]).paths
            read = [path[example.positions] for path, example in zip(paths, group, strict=True)]
            learned = [path[example.lm_positions] for path, example in zip(paths, group, strict=True)]
            counts, lm_counts = (np.bincount(np.concatenate(places).astype(np.int64)) for places in (read, learned))
            for i, at, lm_at in zip(together, read, learned, strict=True):
                yield i, counts[at], lm_counts[lm_at]

    examples.share_weights(times())


def _members(groups: Sequence[Hashable]) -> Iterable[list[int]]:
    """Return the indices of each group's members."""
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    return members.values()
