"""Attention along a forest as a list of kernel calls: shared prefixes once for all that continue them.

In depth-first order each leaf of a forest adds one suffix of new tokens after a prefix that it shares. A suffix attends
to itself and perhaps to some tokens before it, causally; the prefix that several suffixes share takes one call without
a mask, of all their queries (Hydragen: Juravsky et al. 2024, section 3). No query is padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stepverify.data.tree import Forest

# Times of forward and backward pass, measured on a CPU, in units of a cell (a query and a key) of a causal call:
_QUERY = 45.0  # of a causal call
_PREFIX_QUERY, _PREFIX_CELL, _PREFIX = 32.0, 0.4, 600.0  # of a call without a mask, and its merging


class Suffix(NamedTuple):
    """Tokens ``start`` to ``stop``, which one leaf adds after ``shared`` tokens of its path."""

    start: int
    stop: int
    shared: int
    path: np.ndarray


@dataclass(frozen=True, slots=True)
class Segments:
    """Kernel calls that together let each token attend to its path.

    Attributes:
        keys: (K,) tokens whose keys the calls read, one call after the other.
        calls: (C, 5) first key and one past the last, among ``keys``; first query and one past the last, among the
            tokens; whether the call is causal, the last key then being the last query's own. Causal calls come first,
            and have each token once as a query.
    """

    keys: np.ndarray
    calls: np.ndarray


def suffixes_of(forest: Forest, padding: int = 0) -> list[Suffix]:
    """List what each leaf adds, in the order of the tokens, then ``padding`` tokens as sequences of their own.

    None of these is longer than the longest of the forest.
    """
    found: list[Suffix] = []
    start, longest = 0, 0
    for path in sorted((forest.paths[leaf] for leaf in forest.leaves), key=lambda path: int(path[-1])):
        stop, longest = int(path[-1]) + 1, max(longest, len(path))
        found.append(Suffix(start, stop, len(path) - (stop - start), path))
        start = stop
    used = len(forest.ids)
    for at in range(used, used + padding, longest):
        stop = min(at + longest, used + padding)
        found.append(Suffix(at, stop, 0, np.arange(at, stop)))
    return found


def segments_of(suffixes: list[Suffix], *, prefixes: bool = True) -> Segments:
    """Choose which prefixes get a call of their own, so that all calls together take little time.

    Args:
        suffixes: in the order of the tokens.
        prefixes: False gives none of them a call: each suffix attends to its whole path.
    """
    covered, common = _shared_prefixes(suffixes) if prefixes else ([0] * len(suffixes), [])
    pieces = [suffix.path[at:] for suffix, at in zip(suffixes, covered, strict=True)] + [keys for keys, *_ in common]
    queries = [(suffix.start, suffix.stop, 1) for suffix in suffixes] + [(first, last, 0) for _, first, last in common]
    ends = np.cumsum([len(piece) for piece in pieces])
    calls = [(end - len(piece), end, *query) for piece, end, query in zip(pieces, ends, queries, strict=True)]
    return Segments(np.concatenate(pieces), np.array(calls, np.int64))


def _shared_prefixes(suffixes: list[Suffix]) -> tuple[list[int], list[tuple[np.ndarray, int, int]]]:
    """Greedily from the roots down: how deep calls cover each suffix's path; keys and range of queries of each call."""
    covered = [0] * len(suffixes)
    common: list[tuple[np.ndarray, int, int]] = []
    groups = [(0, len(suffixes))]
    while groups:
        first, last = groups.pop()
        head, *rest = range(first, last)
        if not rest:
            continue
        # All share so much. The rest is covered equally deep; the head, being a suffix of the prefix itself, less.
        depth, begin = min(suffixes[i].shared for i in rest), covered[rest[0]]
        if depth > begin and _is_worth_a_call([suffixes[i] for i in rest], begin, depth):
            common.append((suffixes[head].path[begin:depth], suffixes[head].stop, suffixes[last - 1].stop))
            for i in rest:
                covered[i] = depth
        borders = [i for i in rest if suffixes[i].shared == depth]
        groups += zip([head, *borders], [*borders, last], strict=True)
    return covered, common


def _is_worth_a_call(rest: list[Suffix], begin: int, depth: int) -> bool:
    lengths = np.array([len(suffix.path) for suffix in rest])
    saved = _causal(lengths - begin) - _causal(lengths - depth)
    queries = rest[-1].stop - rest[0].start
    return bool(saved.sum() > _PREFIX + queries * (_PREFIX_QUERY + _PREFIX_CELL * (depth - begin)))


def _causal(lengths: np.ndarray) -> np.ndarray:
    return _QUERY * lengths + lengths**2 / 2
