"""What a model reads: token ids in which shared prefixes stand once, and the positions at which its head is applied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

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
        """Copy to memory from which a GPU reads while the program goes on; data loaders call it."""
        return self._each(lambda value: value.pin_memory())

    def _each(self, function: Callable[[Any], Any]) -> Self:
        moved: dict[str, Any] = {}
        for f in fields(self):  # type: ignore[arg-type]
            if isinstance(value := getattr(self, f.name), Tensor | _Movable):
                moved[f.name] = function(value)
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(kw_only=True, slots=True)
class Calls(_Movable):
    """Calls of an attention kernel, as :class:`stepverify.data.segments.Segments` describes them.

    Attributes:
        keys: (K,) tokens.
        calls: (C, 5) ranges of keys and queries.
    """

    keys: Tensor
    calls: Tensor


@dataclass(kw_only=True, slots=True)
class Tree(_Movable):
    """How L tokens in one row continue each other, along R sequences of at most T tokens; no other continues these.

    Attributes:
        depth: (L,) position of each token along its sequence.
        end: (L,) token i sees token j exactly where j ≤ i < end[j].
        rows: (R, T) the token at each place of each sequence, padded on the correct with its last one.
        origin: (L,) a place of each token among the flattened (R·T).
        segments: what attention calls, shared prefixes once.
        suffixes: the same with a call for each sequence, from its first token on.
        shared: False where every sequence has tokens of its own.
        masks: what attention has made of this, to be used by every layer.
    """

    depth: Tensor
    end: Tensor
    rows: Tensor
    origin: Tensor
    segments: Calls
    suffixes: Calls
    shared: bool = True
    masks: dict[Any, Any] = field(default_factory=dict, repr=False)


@dataclass(kw_only=True, slots=True)
class ScoredPositions(_Movable):
    """M distinct things to read, and which record reads what.

    Attributes:
        index: (M,) token after whose hidden state the head is applied.
        targets: (M,) what should be read there (a token id, or a probability); None in prediction.
        weights: (M,) how much each counts in the loss.
        entries: (N,) which of the M each record reads along its solution, one record after the other.
        owner: (N,) the record.
        problem: (B,) number of the problem that each of the B records solves.
    """

    index: Tensor
    targets: Tensor | None
    weights: Tensor
    entries: Tensor
    owner: Tensor
    problem: Tensor


@dataclass(kw_only=True, slots=True)
class Batch(_Movable):
    """B solutions in L tokens.

    Attributes:
        input_ids: (L,) token ids.
        tree: how they continue each other.
        scored: where the head is applied.
        lm: where a joint language-model loss reads, perhaps nowhere, ``targets`` being token ids; None without.
        records: the B solutions.
        num_tokens: tokens of all solutions, each counted in full.
        loss_denominators: of the summed losses in training, see :class:`stepverify.data.batching.Plan`.
    """

    input_ids: Tensor
    tree: Tree
    scored: ScoredPositions
    lm: ScoredPositions | None
    records: list[Solution]
    num_tokens: int
    loss_denominators: tuple[float, float] | None = None

    def last(self) -> Tensor:
        """(B,) which of the M reads is the last one of each record."""
        return self.scored.entries[self._counts().cumsum(0) - 1]

    def split(self, values: Tensor) -> list[list[float]]:
        """(M,) values → for each record the values along it."""
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
    """Lay examples out in one row of tokens, what they share once.

    Args:
        examples: B encoded solutions.
        shared: False writes shared prefixes for each, as models need that do not read trees.
        pad_to: L is padded to a multiple of it with tokens that nobody reads: compiled models see fewer shapes.
        loss_denominators: passed on.
        lm: read for a language-model loss even where no example has a position for it: each rank's gradients then
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
        input_ids=_tensor(np.pad(forest.ids, (0, padding))),
        tree=lay_out(forest, padding, shared),
        scored=_scored(places, targets, [e.weights for e in examples], problems),
        lm=_scored(lm_places, successors, lm_weights, problems) if successors or lm else None,
        records=[e.record for e in examples],
        num_tokens=sum(map(len, forest.paths)),
        loss_denominators=loss_denominators,
    )


def lay_out(forest: Forest, padding: int = 0, shared: bool = True) -> Tree:
    """Turn a forest into tensors, followed by so many tokens that nobody reads."""
    used, longest = len(forest.ids), max(map(len, forest.paths))
    rows = np.empty((len(forest.leaves), longest), np.int64)
    origin = np.zeros(used, np.int64)
    for row, leaf in enumerate(forest.leaves):
        path = forest.paths[leaf]
        rows[row, : len(path)], rows[row, len(path) :] = path, path[-1]
        origin[path] = row * longest + np.arange(len(path))
    suffixes = suffixes_of(forest, padding)
    return Tree(
        depth=_tensor(np.pad(forest.depth, (0, padding))),
        end=_tensor(np.concatenate([forest.end, np.arange(used, used + padding) + 1])),
        rows=_tensor(rows),
        origin=_tensor(np.pad(origin, (0, padding))),
        segments=_calls(segments_of(suffixes)),
        suffixes=_calls(segments_of(suffixes, prefixes=False)),
        shared=shared,
    )


def _calls(segments: Segments) -> Calls:
    return Calls(keys=_tensor(segments.keys), calls=_tensor(segments.calls))


def _scored(
    places: Sequence[np.ndarray], targets: Sequence[float] | None, weights: Sequence[Sequence[float] | None],
    problems: Sequence[str],
) -> ScoredPositions:  # fmt: skip
    """Merge what is read at one token with one target; its weights add up."""
    flat = np.concatenate(places)
    wanted = np.zeros(len(flat)) if targets is None else np.array(targets, np.float64)
    kinds, kind = np.unique(wanted, return_inverse=True)
    keys, first, entries = np.unique(flat * len(kinds) + kind, return_index=True, return_inverse=True)
    each = np.concatenate([np.ones(len(p)) if w is None else np.array(w) for p, w in zip(places, weights, strict=True)])
    return ScoredPositions(
        index=_tensor(keys // len(kinds)),
        targets=None if targets is None else torch.from_numpy(wanted[first]).float(),
        weights=torch.from_numpy(np.bincount(entries, weights=each, minlength=len(keys))).float(),
        entries=_tensor(entries),
        owner=_tensor(np.repeat(np.arange(len(places)), [len(p) for p in places])),
        problem=_tensor(np.unique(problems, return_inverse=True)[1]),
    )


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.int64))
