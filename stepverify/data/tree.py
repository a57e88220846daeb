"""Store several token sequences as a forest, with each distinct prefix once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Forest:
    """Hold the tokens of B sequences with shared prefixes stored once.

    Sequences are visited in the order of their ids, so tokens are in depth-first order: all continuations of a token
    follow it without a gap.

    Attributes:
        ids: (L,) token ids.
        depth: (L,) position of each token in its sequence.
        end: (L,) one past the last token that continues this one: token i attends to token j exactly if j ≤ i < end[j].
        paths: for each sequence, in the order given, the indices of its tokens.
        leaves: sequences that no other continues, one of several equal ones: every token belongs to one of them.
    """

    ids: np.ndarray
    depth: np.ndarray
    end: np.ndarray
    paths: list[np.ndarray]
    leaves: list[int]


def share(sequences: Sequence[Sequence[int]]) -> Forest:
    """Store sequences so that each distinct prefix occurs once.

    Args:
        sequences: B lists of token ids.
    """
    ids, depth, end = (np.zeros(sum(map(len, sequences)), np.int64) for _ in range(3))
    paths: list[np.ndarray] = [np.empty(0, np.int64)] * len(sequences)
    before: Sequence[int] = ()
    path = paths[0]
    used = 0
    order = in_order(sequences)
    leaves = order[-1:]
    for previous, b in zip([order[0], *order], order, strict=False):
        sequence = sequences[b]
        common = common_prefix(before, sequence)
        if common < len(before):
            leaves.append(previous)
        end[path[common:]] = used
        new = np.arange(used, used + len(sequence) - common)
        ids[new], depth[new] = sequence[common:], np.arange(common, len(sequence))
        path = paths[b] = np.concatenate([path[:common], new])
        before, used = sequence, used + len(new)
    end[path] = used
    return Forest(ids[:used], depth[:used], end[:used], paths, sorted(leaves))


def apart(sequences: Sequence[Sequence[int]]) -> Forest:
    """Store sequences one after the other, without sharing prefixes.

    Args:
        sequences: B lists of token ids.
    """
    stops = np.cumsum([len(s) for s in sequences])
    paths = [np.arange(stop - len(s), stop) for s, stop in zip(sequences, stops, strict=True)]
    return Forest(
        ids=np.concatenate([np.array(s, np.int64) for s in sequences]),
        depth=np.concatenate([np.arange(len(s)) for s in sequences]),
        end=np.concatenate([np.full(len(s), stop) for s, stop in zip(sequences, stops, strict=True)]),
        paths=paths,
        leaves=list(range(len(sequences))),
    )


def in_order(sequences: Sequence[Sequence[int]]) -> list[int]:
    """Sort the indices of sequences by token ids.

    Each sequence then shares its longest common prefix with a neighbour.
    """
    return sorted(range(len(sequences)), key=lambda i: list(sequences[i]))


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Compute the length of the longest common prefix."""
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
