"""Plan attention kernel calls that compute shared prefixes once.

In depth-first order each leaf of a forest adds one suffix of new tokens after a prefix that it shares. A suffix attends
causally to itself and possibly to some tokens before it. A prefix that several suffixes share takes one call without a
mask, with all their queries (Hydragen: Juravsky et al. 2024, section 3). Causal calls are padded to one length only
where that saves time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from stepverify.data.tree import Forest

# Times of forward and backward pass, measured on a CPU, in units of one query-key pair of a causal call:
_QUERY = 45.0  # of a causal call
_PREFIX_QUERY, _PREFIX_CELL, _PREFIX = 32.0, 0.4, 600.0  # of a call without a mask, including the merge
# The same in units of one query-key pair of one element of the heads (about 1.5 ns), where heads may be narrow:
_CALL = 75_000.0  # of a causal call, besides what it computes
_PADDED, _PADDED_ELEMENT = 180_000.0, 5.0  # of a padded call, and of each element that it copies
_BLOCK = 32  # queries that a causal kernel computes together, up to the key of the final one
_ELEMENTS = 65_536  # of a padded call's queries: larger tensors leave the cache


class Suffix(NamedTuple):
    """Hold the tokens that one leaf adds after a shared prefix.

    They are the tokens ``start`` to ``stop``. ``path`` are all tokens of the leaf's sequence, of which the first
    ``shared`` ones are the prefix, and the first ``cached`` of these are no queries of the batch.
    """

    start: int
    stop: int
    shared: int
    path: np.ndarray
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Segments:
    """Hold kernel calls that let each token attend to its sequence.

    Attributes:
        keys: (K,) tokens whose keys the calls use, one call after the other.
        calls: (C, 5) start and end of the keys, as positions in ``keys``; start and end of the queries, as tokens; and
            whether the call is causal, in which case the final key belongs to the final query. Causal calls come first,
            and have each token once as a query.
    """

    keys: np.ndarray
    calls: np.ndarray


def suffixes_of(forest: Forest, padding: int = 0) -> list[Suffix]:
    """List the suffix of each leaf in token order, then ``padding`` tokens.

    Padding forms sequences of its own, none longer than the longest of the forest.
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
    """Choose which prefixes get a kernel call of their own.

    This minimizes the estimated time.

    Args:
        suffixes: in token order.
        prefixes: False gives no prefix a call: each suffix attends to its whole sequence.
    """
    if not suffixes:
        return Segments(np.empty(0, np.int64), np.empty((0, 5), np.int64))
    covered, common = _shared_prefixes(suffixes) if prefixes else ([0] * len(suffixes), [])
    pieces = [suffix.path[at:] for suffix, at in zip(suffixes, covered, strict=True)] + [keys for keys, *_ in common]
    queries = [(suffix.start, suffix.stop, 1) for suffix in suffixes] + [(first, last, 0) for _, first, last in common]
    ends = np.cumsum([len(piece) for piece in pieces])
    calls = [(end - len(piece), end, *query) for piece, end, query in zip(pieces, ends, queries, strict=True)]
    return Segments(np.concatenate(pieces), np.array(calls, np.int64))


def _shared_prefixes(suffixes: list[Suffix]) -> tuple[list[int], list[tuple[np.ndarray, int, int]]]:
    """Choose prefix calls greedily from the roots down.

    Cached tokens are covered in any case: by one call for neighbours that share all of theirs. Returns how many tokens
    of each suffix's path the calls cover, and the keys and query range of each call.
    """
    covered = [suffix.cached for suffix in suffixes]
    groups = _by_cached(suffixes)
    common = [
        (suffixes[first].path[: covered[first]], suffixes[first].start, suffixes[last - 1].stop)
        for first, last in groups if covered[first]
    ]  # fmt: skip
    while groups:
        first, last = groups.pop()
        head, *rest = range(first, last)
        if not rest:
            continue
        # All share ``depth`` tokens. The rest is covered equally far, the head, whose suffix is in the prefix, less.
        depth, begin = min(suffixes[i].shared for i in rest), covered[rest[0]]
        if depth > begin and _is_worth_a_call([suffixes[i] for i in rest], begin, depth):
            common.append((suffixes[head].path[begin:depth], suffixes[head].stop, suffixes[last - 1].stop))
            for i in rest:
                covered[i] = depth
        borders = [i for i in rest if suffixes[i].shared == depth]
        groups += zip([head, *borders], [*borders, last], strict=True)
    return covered, common


def _by_cached(suffixes: list[Suffix]) -> list[tuple[int, int]]:
    """Return ranges of neighbours with the same cached tokens."""
    ends = [suffix.path[suffix.cached - 1] if suffix.cached else -1 for suffix in suffixes]
    borders = [0, *(i for i in range(1, len(ends)) if ends[i] != ends[i - 1]), len(ends)]
    return list(pairwise(borders))


def _is_worth_a_call(rest: list[Suffix], begin: int, depth: int) -> bool:
    lengths = np.array([len(suffix.path) for suffix in rest])
    saved = _causal(lengths - begin) - _causal(lengths - depth)
    queries = rest[-1].stop - rest[0].start
    return bool(saved.sum() > _PREFIX + queries * (_PREFIX_QUERY + _PREFIX_CELL * (depth - begin)))


def _causal(lengths: np.ndarray) -> np.ndarray:
    return _QUERY * lengths + lengths**2 / 2


def padded_groups(calls: np.ndarray, width: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Choose causal calls that are faster as one padded call.

    Calls are sorted by length and divided so that the estimated time is least. Long calls and wide heads gain nothing:
    copies cost more than calls.

    Args:
        calls: (C, 5), see :class:`Segments`.
        width: number of heads times their width.

    Returns:
        Groups of (N, 5) calls each, longest first; and all other calls, in the order given.
    """
    lengths, causal = calls[:, 1] - calls[:, 0], np.flatnonzero(calls[:, 4])
    order = causal[np.argsort(-lengths[causal], kind="stable")]
    number, cells = len(order), lengths[order] * (lengths[order] + _BLOCK) / 2
    saved, size = np.zeros(number + 1), np.ones(number, np.int64)  # by the calls from here on, and their first group
    for i in reversed(range(number)):
        longest = int(lengths[order[i]])
        saved[i], most = saved[i + 1], _ELEMENTS // (longest * width)
        each = _CALL - _PADDED_ELEMENT * longest * width
        if each > 0 and most > 1:
            padding = width * (cells[i] - cells[i : i + most])
            together = np.cumsum(each - padding) - _PADDED + saved[i + 1 : i + most + 1]
            if together[best := int(together.argmax())] > saved[i]:
                saved[i], size[i] = together[best], best + 1
    groups, alone, i = [], np.ones(len(calls), bool), 0
    while i < number:
        group = order[i : i + size[i]]
        if len(group) > 1:
            groups.append(calls[group])
            alone[group] = False
        i += len(group)
    return groups, calls[alone]
