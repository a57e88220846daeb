"""Collate examples into a batch in which shared prefixes are stored once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from stepverify.data.encode import Example
from stepverify.data.segments import Segments, segments_of, suffixes_of
from stepverify.data.tree import Forest, apart, share
from stepverify.records import Solution


class _Movable:
    __slots__ = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Copy to another device."""
        return self._each(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Copy to page-locked memory, from which a GPU copies asynchronously.

        Data loaders call it.
        """
        return self._each(lambda value: value.pin_memory())

    def _each(self, function: Callable[[Any], Any]) -> Self:
        moved: dict[str, Any] = {}
        for f in fields(self):  # type: ignore[arg-type]
            if isinstance(value := getattr(self, f.name), Tensor | _Movable):
                moved[f.name] = function(value)
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(kw_only=True, slots=True)
class Calls(_Movable):
    """Hold attention kernel calls as tensors; see :class:`stepverify.data.segments.Segments`.

    Attributes:
        keys: (K,) tokens.
        calls: (C, 5) ranges of keys and queries.
    """

    keys: Tensor
    calls: Tensor


class Past(Protocol):
    """Provide keys and values of earlier tokens to each attention layer in turn.

    Attributes:
        size: number of earlier tokens.
    """

    size: int

    def join(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append a layer's earlier keys and values to the (1, heads, L, D) new ones."""
        ...


@dataclass(kw_only=True, slots=True)
class Tree(_Movable):
    """Describe a prefix tree of R sequences in L tokens.

    The R sequences, of at most T tokens, are those that no other sequence continues.

    Attributes:
        depth: (L,) position of each token in its sequence.
        end: (L,) token i attends to token j exactly if j ≤ i < end[j].
        rows: (R, T) token at each position of each sequence, padded on the right with the sequence's final token.
        origin: (L,) one position of each token in the flattened (R·T).
        segments: attention calls that compute shared prefixes once.
        suffixes: attention calls, one for each sequence from its first token on.
        shared: False if no sequences share tokens.
        past: keys and values of C cached tokens, which attention joins with those of the L tokens. ``rows`` and calls
            name them L to L + C - 1, ``end`` is empty. None without a cache.
        masks: cache of attention masks, used by all layers.
    """

    depth: Tensor
    end: Tensor
    rows: Tensor
    origin: Tensor
    segments: Calls
    suffixes: Calls
    shared: bool = True
    past: Past | None = None
    masks: dict[Any, Any] = field(default_factory=dict, repr=False)


@dataclass(kw_only=True, slots=True)
class ScoredPositions(_Movable):
    """Hold M distinct scored positions, and the records that use them.

    Attributes:
        index: (M,) token after whose hidden state the head is applied.
        targets: (M,) target at each position (a token id, or a probability); None in prediction.
        weights: (M,) weight of each position in the loss.
        entries: (N,) scored positions along each record's solution, one record after the other.
        owner: (N,) record of each entry.
        problem: (B,) number of the problem that each of the B records solves.
        tokens: (U,) tokens of ``index``, each once, in its order; None without ``reference``.
        reference: (U,) their log-probabilities under a reference model; None if not known.
    """

    index: Tensor
    targets: Tensor | None
    weights: Tensor
    entries: Tensor
    owner: Tensor
    problem: Tensor
    tokens: Tensor | None = None
    reference: Tensor | None = None


@dataclass(kw_only=True, slots=True)
class Batch(_Movable):
    """Hold B solutions in L tokens.

    Attributes:
        input_ids: (L,) token ids.
        tree: the prefix tree of the tokens.
        scored: positions at which the head is applied.
        lm: scored positions of a joint language-model loss, possibly empty, with token ids as ``targets``; None without
            such a loss.
        records: the B solutions.
        num_tokens: tokens of all solutions, shared prefixes counted each time.
        loss_denominators: divisors of the summed losses in training, see :class:`stepverify.data.batching.Plan`.
    """

    input_ids: Tensor
    tree: Tree
    scored: ScoredPositions
    lm: ScoredPositions | None
    records: list[Solution]
    num_tokens: int
    loss_denominators: tuple[float, float] | None = None

    def last(self) -> Tensor:
        """Return the (B,) final scored position of each record."""
        return self.scored.entries[self._counts().cumsum(0) - 1]

    def split(self, values: Tensor) -> list[list[float]]:
        """Split (M,) values into the values along each record."""
        parts = values[self.scored.entries].float().cpu().split(self._counts().tolist())
        return [part.tolist() for part in parts]

    def _counts(self) -> Tensor:
        return torch.bincount(self.scored.owner, minlength=len(self.records))


def collate(
    examples: Sequence[Example],
    *,
    shared: bool = True,
    pad_to: int = 1,
    loss_denominators: tuple[float, float] | None = None,
    lm: bool = False,
) -> Batch:
    """Collate examples into one row of tokens, with shared prefixes stored once.

    Args:
        examples: B encoded solutions.
        shared: False repeats shared prefixes in each sequence, for models that do not support prefix trees.
        pad_to: L is padded to a multiple of it with unused tokens, so that compiled models see fewer shapes.
        loss_denominators: passed on.
        lm: compute the language-model loss even if no example has a position for it, so that the gradients of all ranks
            reach the same parameters.
    """
    forest = (share if shared else apart)([e.input_ids for e in examples])
    padding = -len(forest.ids) % pad_to
    places = [path[e.positions] for path, e in zip(forest.paths, examples, strict=True)]
    targets = None if examples[0].targets is None else [t for e in examples for t in e.targets or ()]
    lm_places = [path[e.lm_positions] for path, e in zip(forest.paths, examples, strict=True)]
    successors = [t for e in examples for t in e.lm_targets()]
    lm_weights = [e.lm_weights for e in examples]
    problems = [e.record.problem_id for e in examples]
    return Batch(
        input_ids=as_tensor(np.pad(forest.ids, (0, padding))),
        tree=lay_out(forest, padding, shared),
        scored=_scored(places, targets, [e.weights for e in examples], problems, [e.reference for e in examples]),
        lm=_scored(lm_places, successors, lm_weights, problems) if successors or lm else None,
        records=[e.record for e in examples],
        num_tokens=sum(map(len, forest.paths)),
        loss_denominators=loss_denominators,
    )


def lay_out(forest: Forest, padding: int = 0, shared: bool = True) -> Tree:
    """Convert a forest to tensors, followed by ``padding`` unused tokens."""
    used = len(forest.ids)
    rows, origin = by_rows([forest.paths[leaf] for leaf in forest.leaves], used, padding)
    suffixes = suffixes_of(forest, padding)
    return Tree(
        depth=as_tensor(np.pad(forest.depth, (0, padding))),
        end=as_tensor(np.concatenate([forest.end, np.arange(used, used + padding) + 1])),
        rows=rows,
        origin=origin,
        segments=as_calls(segments_of(suffixes)),
        suffixes=as_calls(segments_of(suffixes, prefixes=False)),
        shared=shared,
    )


def by_rows(paths: Sequence[np.ndarray], used: int, padding: int = 0) -> tuple[Tensor, Tensor]:
    """Return ``rows`` and ``origin`` of a :class:`Tree` with ``used`` tokens, given the tokens of its R sequences."""
    longest = max(map(len, paths), default=0)
    rows, origin = np.empty((len(paths), longest), np.int64), np.zeros(used + padding, np.int64)
    for row, path in enumerate(paths):
        rows[row, : len(path)], rows[row, len(path) :] = path, path[-1]
        here = path < used  # others are cached
        origin[path[here]] = row * longest + np.flatnonzero(here)
    return as_tensor(rows), as_tensor(origin)


def as_calls(segments: Segments) -> Calls:
    """Convert attention calls to tensors."""
    return Calls(keys=as_tensor(segments.keys), calls=as_tensor(segments.calls))


def _scored(
    places: Sequence[np.ndarray], targets: Sequence[float] | None, weights: Sequence[Sequence[float] | None],
    problems: Sequence[str], references: Sequence[Sequence[float] | None] = (None,),
) -> ScoredPositions:  # fmt: skip
    """Merge positions with the same token and target; their weights add up."""
    flat = np.concatenate(places)
    wanted = np.zeros(len(flat)) if targets is None else np.array(targets, np.float64)
    kinds, kind = np.unique(wanted, return_inverse=True)
    keys, first, entries = np.unique(flat * len(kinds) + kind, return_index=True, return_inverse=True)
    index = keys // len(kinds)
    known = np.array([value for own in references for value in own or ()])  # of all examples or of none
    once = np.diff(index, prepend=-1) > 0
    each = np.concatenate([np.ones(len(p)) if w is None else np.array(w) for p, w in zip(places, weights, strict=True)])
    return ScoredPositions(
        index=as_tensor(index),
        targets=None if targets is None else torch.from_numpy(wanted[first]).float(),
        weights=torch.from_numpy(np.bincount(entries, weights=each, minlength=len(keys))).float(),
        entries=as_tensor(entries),
        owner=as_tensor(np.repeat(np.arange(len(places)), [len(p) for p in places])),
        problem=as_tensor(np.unique(problems, return_inverse=True)[1]),
        tokens=as_tensor(index[once]) if len(known) else None,
        reference=torch.from_numpy(known[first[once]]).float() if len(known) else None,
    )


def as_tensor(array: np.ndarray) -> Tensor:
    """Convert to a tensor of integers."""
    return torch.from_numpy(np.ascontiguousarray(array, np.int64))
