"""Lay out the tokens that follow cached prefixes.

Keys are numbered with the new tokens first, in depth-first order, then the cached ones. So queries are the first keys,
and causal calls need new tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from stepverify.data.batch import Batch, ScoredPositions, Tree, as_calls, as_tensor, by_rows
from stepverify.data.encode import Example
from stepverify.data.segments import Suffix, segments_of
from stepverify.data.tree import share


class Piece(NamedTuple):
    """Name cached tokens: those at positions ``begin`` to ``end`` of a sequence."""

    sequence: int
    begin: int
    end: int


class Continued(NamedTuple):
    """Hold a batch of new tokens, and where the cached ones are.

    Attributes:
        batch: L new tokens, each a scored position; ``scored.entries`` are keys.
        pieces: the C cached tokens in the order of their keys, each once.
        paths: keys along each sequence.
    """

    batch: Batch
    pieces: list[Piece]
    paths: list[np.ndarray]


def continued(examples: Sequence[Example], cached: Sequence[int]) -> Continued:
    """Collate the tokens after cached prefixes; shared ones are stored once.

    Args:
        examples: B encoded solutions.
        cached: number of cached tokens at the start of each. Where two begin with the same tokens, both say so.
    """
    forest = share([e.input_ids for e in examples])
    known = np.zeros(len(forest.ids), bool)
    for path, count in zip(forest.paths, cached, strict=True):
        known[path[:count]] = True
    used = int((~known).sum())
    key = np.where(known, used + np.cumsum(known) - 1, np.cumsum(~known) - 1)
    paths = [key[path] for path in forest.paths]
    pieces: list[Piece] = []
    visited = 0
    for i in sorted(range(len(examples)), key=lambda i: int(forest.paths[i][-1])):
        path, count = forest.paths[i], cached[i]
        if (begin := int(np.searchsorted(path[:count], visited))) < count:
            pieces.append(Piece(i, begin, count))
        visited = max(visited, int(path[-1]) + 1)
    suffixes: list[Suffix] = []
    start = 0
    for path in sorted((forest.paths[leaf] for leaf in forest.leaves), key=lambda path: int(path[-1])):
        if fresh := int((~known[start : (stop := int(path[-1]) + 1)]).sum()):
            end = int(key[stop - 1]) + 1
            suffixes.append(Suffix(end - fresh, end, len(path) - fresh, key[path], int(known[path].sum())))
        start = stop
    rows, origin = by_rows([suffix.path for suffix in suffixes], used)
    tree = Tree(
        depth=as_tensor(forest.depth[~known]), end=as_tensor(np.empty(0)), rows=rows, origin=origin,
        segments=as_calls(segments_of(suffixes)), suffixes=as_calls(segments_of(suffixes, prefixes=False)),
    )  # fmt: skip
    scored = ScoredPositions(
        index=torch.arange(used), targets=None, weights=torch.ones(used),
        entries=as_tensor(np.concatenate([path[e.positions] for path, e in zip(paths, examples, strict=True)])),
        owner=as_tensor(np.repeat(np.arange(len(examples)), [len(e.positions) for e in examples])),
        problem=as_tensor(np.unique([e.record.problem_id for e in examples], return_inverse=True)[1]),
    )  # fmt: skip
    batch = Batch(
        input_ids=as_tensor(forest.ids[~known]), tree=tree, scored=scored, lm=None,
        records=[e.record for e in examples], num_tokens=sum(map(len, paths)),
    )  # fmt: skip
    return Continued(batch, pieces, paths)
