"""Score examples pack by pack; with a prefix cache, new tokens only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stepverify.cache_size import cache_bytes
from stepverify.data.batch import Batch, as_tensor, collate
from stepverify.data.continued import Continued, Piece, continued
from stepverify.data.encode import Example
from stepverify.data.packing import to_score
from stepverify.data.tree import common_prefix, in_order
from stepverify.models.backbone import log, without_adapters
from stepverify.models.check import TOLERANCE, difference, exact, narrowed, sequences_for
from stepverify.models.heads import VerifierModel
from stepverify.models.implicit import ImplicitModel
from stepverify.prefix_cache import Node, PrefixCache
from stepverify.records import Solution

Count = Callable[[int, int], None]
Found = list[tuple[Node, int]]
"""Nodes along a sequence's known prefix, and the number of tokens in each."""


class Pack(NamedTuple):
    """Hold the scores of a pack.

    Attributes:
        indices: examples in the pack.
        batch: splits ``values`` into those of the examples.
        values: probabilities.
    """

    indices: list[int]
    batch: Batch
    values: Tensor


def score_examples(
    model: VerifierModel, examples: Sequence[Example], pack_tokens: int, cache: PrefixCache | None, count: Count | None
) -> Iterator[tuple[int, list[float]]]:
    """Yield index and values of examples, pack by pack.

    Args:
        model: in evaluation mode.
        examples: encoded solutions, at least one.
        pack_tokens: tokens computed at the same time, with shared prefixes counted once; and tokens taken from the
            cache at the same time.
        cache: prefixes of earlier calls, for a model of which :func:`why_not_cached` has nothing to say; None computes
            every call by itself.
        count: called for each pack with the number of tokens along its examples, and how many of these are not
            computed: they are shared within the pack, or in the cache.
    """
    # Some models change the positions of long rows, and with them all keys.
    if cache is None or not model.packs(max(len(e.input_ids) for e in examples)):
        packs = _score_all(model, examples, pack_tokens)
    else:
        packs = _score_new(model, examples, pack_tokens, cache)
    running = None
    for pack in packs:
        if count is not None:
            count(pack.batch.num_tokens, pack.batch.num_tokens - len(pack.batch.input_ids))
        # Read a pack's values only after starting the next one, so that a GPU is not idle.
        if running is not None:
            yield from zip(running.indices, running.batch.split(running.values), strict=True)
        running = pack
    assert running is not None
    yield from zip(running.indices, running.batch.split(running.values), strict=True)


def _score_all(model: VerifierModel, examples: Sequence[Example], pack_tokens: int) -> Iterator[Pack]:
    """Score packs of whole sequences, with the prefixes that they share computed once."""
    sequences, groups = [e.input_ids for e in examples], [e.record.problem_id for e in examples]
    shared = model.packs(max(map(len, sequences)))
    for indices in to_score(sequences, groups, pack_tokens, shared):
        batch = collate([examples[i] for i in indices], shared=shared).to(_device(model))
        with torch.inference_mode():
            values = model.score(batch)
        yield Pack(indices.tolist(), batch, values)


def _score_new(
    model: VerifierModel, examples: Sequence[Example], pack_tokens: int, cache: PrefixCache
) -> Iterator[Pack]:
    """Score packs of the tokens after the longest prefixes in a cache, and add these tokens to it.

    Every computed token gets a score and is kept: a later call may read a path at another position.
    """
    waiting = deque(in_order([e.input_ids for e in examples]))
    while waiting:
        indices, found = _next_pack(waiting, examples, pack_tokens, cache)
        together = [examples[i] for i in indices]
        with torch.inference_mode():
            made, batch, values, states = _compute(model.score, together, found, _device(model))
            parts = list(_parts(made.pieces, found))
            known = [node.scores[begin:end] for node, begin, end in parts if node.scores is not None]
            along = torch.cat([values, *known])
            _keep(cache, together, made, found, states, values)  # which may divide nodes
        yield Pack(indices, batch, along)


def _next_pack(
    waiting: deque[int], examples: Sequence[Example], pack_tokens: int, cache: PrefixCache
) -> tuple[list[int], list[Found]]:
    indices: list[int] = []
    found: list[Found] = []
    before: list[int] = []
    new = old = 0
    while waiting:
        ids = examples[waiting[0]].input_ids
        path = cache.find(ids)
        known, common = sum(count for _, count in path), common_prefix(before, ids)
        new, old = new + len(ids) - max(known, common), old + max(0, known - common)
        if indices and max(new, old) > pack_tokens:
            break
        indices.append(waiting.popleft())
        found.append(path)
        before = ids
    return indices, found


def _compute(
    compute: Callable[[Batch], Tensor], examples: Sequence[Example], found: Sequence[Found], device: torch.device
) -> tuple[Continued, Batch, Tensor, Tensor]:
    """Compute new tokens: layout, batch on the device, (L, …) result, and (L, F) keys and values of all layers."""
    made = continued(examples, [sum(count for _, count in path) for path in found])
    batch = made.batch.to(device)
    if not len(batch.input_ids):
        return made, batch, torch.empty(0, device=device), torch.empty(0, 0, device=device)
    batch.tree.past = past = _Past([node.states[begin:end] for node, begin, end in _parts(made.pieces, found)])
    result = compute(batch)
    return made, batch, result, past.new_states()


def _parts(pieces: Sequence[Piece], found: Sequence[Found]) -> Iterator[tuple[Node, int, int]]:
    """Yield nodes with the range of their tokens that is used, in the order of the pieces."""
    for piece in pieces:
        start = 0
        for node, count in found[piece.sequence]:
            if (begin := max(piece.begin, start)) < (end := min(piece.end, start + count)):
                yield node, begin - start, end - start
            start += count


def _keep(
    cache: PrefixCache, examples: Sequence[Example], made: Continued, found: Sequence[Found], states: Tensor,
    values: Tensor,
) -> None:  # fmt: skip
    """Add the new tokens of a pack to the cache."""
    first = [sum(count for _, count in path) for path in found]
    new = [path[count:] for path, count in zip(made.paths, first, strict=True)]
    rows = as_tensor(np.concatenate(new)).to(values.device).split([len(part) for part in new])
    for example, count, own in zip(examples, first, rows, strict=True):
        cache.add(example.input_ids, count, own, states, values)


class _Past:
    """Join cached and new keys and values, layer by layer, and gather the new ones.

    Layers are told apart by the order in which they ask.

    Args:
        states: (n, F) keys and values of all layers, of the cached tokens.
    """

    def __init__(self, states: Sequence[Tensor]) -> None:
        self.size = sum(map(len, states))
        self._cached = torch.cat([*states]) if states else None
        self._new: list[Tensor] = []
        self._at = 0

    def join(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append a layer's cached keys and values to the (1, heads, L, D) new ones."""
        return self._join(key), self._join(value)

    def _join(self, new: Tensor) -> Tensor:
        heads, width = new.shape[1], new.shape[3]
        self._new.append(new[0].transpose(0, 1).flatten(1))
        if self._cached is None:
            return new
        cached = self._cached[:, self._at : self._at + heads * width].unflatten(1, (heads, width))
        self._at += heads * width
        return torch.cat([new, cached.transpose(0, 1)[None].to(new.dtype)], dim=2)

    def new_states(self) -> Tensor:
        """Return the (L, F) new keys and values of all layers."""
        return torch.cat(self._new, dim=1)


def open_cache(model: VerifierModel, gib: float | None, path: str) -> PrefixCache | None:
    """Make a prefix cache for a model; None without one, which is logged if the model does not support it.

    Args:
        model: in evaluation mode, on its device.
        gib: size of the keys and values in GiB; 0 or None for no cache.
        path: shown in messages.

    Raises:
        InputError: an impossible size.
    """
    size = cache_bytes(gib)
    if not gib:
        return None
    if reason := why_not_cached(model):
        log(f"{path}: prefix_cache_gib: {gib}: not used, prefixes are read again in every call (slower): {reason}")
        return None
    if (limit := model.reading.row_limit) is not None:
        log(
            f"{path}: prefix_cache_gib: {gib}: not used in calls with a solution of more than {limit} tokens, whose "
            "length changes the positions of all of its tokens"
        )
    return PrefixCache(size)


def _device(model: VerifierModel) -> torch.device:
    return next(model.parameters()).device


def why_not_cached(model: VerifierModel) -> str:
    """Measure why keys and values of a model cannot be kept from call to call; empty if they can.

    Two sequences with a common prefix are read in three calls, in float32 and with narrow windows, as in
    :func:`stepverify.models.check.reading_of`. Hidden states after cached prefixes must be those of whole sequences.
    """
    if not model.packed:
        return model.reading.reason
    if isinstance(model, ImplicitModel):
        return "an implicit reward model reads each token after the state before it, by two models"
    base = without_adapters(model.backbone)
    sequences = sequences_for(base.config, base.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    if not model.packs(longest := max(map(len, sequences))):
        return f"its positions depend on the length of a row beyond {model.reading.row_limit} tokens, below {longest}"
    first, second = map(_example, sequences)
    device, cache = _device(model), PrefixCache(1 << 40)
    cuts = [_example(first.input_ids[:count]) for count in (4, 6)]
    with torch.no_grad(), torch.random.fork_rng(devices=[]), exact(base), narrowed(base):
        whole = [model.states(collate([e]).to(device)) for e in (first, second)]
        for together in (cuts[:1], [cuts[1], second], [first]):
            found = [cache.find(e.input_ids) for e in together]
            try:
                made, _, states, keys = _compute(model.states, together, found, device)
            except Exception as error:  # model code may raise anything where keys outnumber queries
                return f"{type(error).__name__}: {error}".partition("\n")[0]
            for example, path in zip(together, made.paths, strict=True):
                wanted, new = whole[example is second], np.flatnonzero(path < len(states))
                if (off := difference([states[path[new]]], [wanted[new]])) > TOLERANCE:
                    return f"hidden states after a cached prefix differ by {off:.1e} of their size"
            _keep(cache, together, made, found, keys, states.new_zeros(len(states)))
    return ""


def _example(ids: list[int]) -> Example:
    return Example(ids, [len(ids) - 1], None, Solution(id="", problem_id="", problem="", steps=[]))
