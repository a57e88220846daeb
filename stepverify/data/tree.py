"""Shared prefixes: several token sequences laid out as a forest, in which each distinct prefix stands once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Forest:
    """Where the tokens of B sequences lie once prefixes that they share are written down once.

    Sequences are visited in the order of their ids, so the tokens lie depth first: whatever continues a token
    follows it without a gap.

    Attributes:
        ids: (L,) token ids.
        depth: (L,) position of each token along its sequence.
        end: (L,) one past the last token that continues this one: token i sees token j exactly where j ≤ i < end[j].
        owner: (L,) one of the sequences that pass through each token.
        paths: for each sequence, in the order given, the indices of its tokens.
    """

    ids: np.ndarray
    depth: np.ndarray
    end: np.ndarray
    owner: np.ndarray
    paths: list[np.ndarray]

    def passing(self) -> np.ndarray:
        """(L,) how many of the sequences pass through each token."""
        return np.bincount(np.concatenate(self.paths), minlength=len(self.ids))


def share(sequences: Sequence[Sequence[int]]) -> Forest:
    """Lay sequences out so that each distinct prefix stands once.

    Args:
        sequences: B lists of token ids.
    """
    ids, depth, end, owner = (np.zeros(sum(map(len, sequences)), np.int64) for _ in range(4))
    paths: list[np.ndarray] = [np.empty(0, np.int64)] * len(sequences)
    before: Sequence[int] = ()
    path = paths[0]
    used = 0
    for b in in_order(sequences):
        sequence = sequences[b]
        common = common_prefix(before, sequence)
        end[path[common:]] = used
        new = np.arange(used, used + len(sequence) - common)
        ids[new], depth[new], owner[new] = sequence[common:], np.arange(common, len(sequence)), b
        path = paths[b] = np.concatenate([path[:common], new])
        before, used = sequence, used + len(new)
    end[path] = used
    return Forest(ids[:used], depth[:used], end[:used], owner[:used], paths)


def in_order(sequences: Sequence[Sequence[int]]) -> list[int]:
    """Indices of sequences in the order of their ids: each shares with its neighbour as much as with anyone."""
    return sorted(range(len(sequences)), key=lambda i: list(sequences[i]))


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
