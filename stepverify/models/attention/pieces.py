"""Compute attention along a tree on CPUs, in one operator of several kernel calls.

Each piece of the tree takes a call, or shares a padded one with pieces alike in length where that is faster. The
results for a token are merged by their log-sum-exp. The backward pass calls the kernels' own with the merged
statistics, so that only inputs, output and log-sum-exp are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stepverify.data.batch import Calls
from stepverify.data.segments import padded_groups


def attend_pieces(query: Tensor, key: Tensor, value: Tensor, calls: Calls, scale: float, window: int | None) -> Tensor:
    """Attend in several calls.

    Args:
        query: (1, H, L, D).
        key: (1, G, L, D).
        value: (1, G, L, D).
        calls: pieces of the tree; without shared prefixes where there is a window, which limits each call's keys.
        scale: factor of the products.
        window: number of tokens to attend to; None is all.

    Returns:
        (1, H, L, D).
    """
    out, _ = torch.ops.stepverify.attend_segments(query, key, value, calls.keys, calls.calls, scale, window)
    return _by_head(out)


@torch.library.custom_op("stepverify::attend_segments", mutates_args=(), device_types="cpu")
def _forward(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, calls: Tensor, scale: float, window: int | None
) -> tuple[Tensor, Tensor]:
    """Compute (L, H, D) output and (L, H) log-sum-exp.

    It is one operator, so that compiled layers remain one graph.
    """
    _, heads, length, width = query.shape
    out = query.new_empty(length, heads, width, dtype=_exact(query.dtype))
    lse = out.new_empty(length, heads)
    by_head, sums_by_head = _by_head(out), lse.T[None]
    groups, alone = _split(query, keys, calls, window)
    for group in groups:
        found, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            group.gather(query), group.gather(key), group.gather(value), 0.0, True, scale=scale
        )
        out.index_copy_(0, group.rows, group.pick(found).to(out.dtype))
        lse.index_copy_(0, group.rows, group.pick(sums))
    for piece in _pieces(keys, alone, window):
        found, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            _take(query, piece.queries), _take(key, piece.keys), _take(value, piece.keys), 0.0, piece.aligned,
            attn_mask=piece.mask(query), scale=scale,
        )  # fmt: skip
        if piece.num_queries > piece.size:
            last = slice(piece.num_queries - piece.size, piece.num_queries)
            found, sums = _take(found, last), _take(sums, last)
        if piece.first:
            _take(by_head, piece.rows).copy_(found)
            _take(sums_by_head, piece.rows).copy_(sums)
        else:
            rows, part, sums = piece.rows, found[0].transpose(0, 1), sums[0].T
            out[rows].lerp_(part.to(out.dtype), (sums - lse[rows]).sigmoid()[..., None])
            lse[rows] = torch.logaddexp(lse[rows], sums)
    return out.to(query.dtype), lse


@_forward.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, calls: Tensor, scale: float, window: int | None
) -> tuple[Tensor, Tensor]:
    _, heads, length, width = query.shape
    return query.new_empty(length, heads, width), query.new_empty(length, heads, dtype=_exact(query.dtype))


@torch.library.custom_op("stepverify::attend_segments_backward", mutates_args=(), device_types="cpu")
def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, keys: Tensor, calls: Tensor,
    scale: float, window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute (L, heads, D) gradients by each call's own backward pass.

    The merged statistics give the weights that a call's keys have among all keys.
    """
    exact = _exact(query.dtype)
    dq = torch.empty_like(by_token(query), dtype=exact)
    dk, dv = (torch.zeros_like(by_token(x), dtype=exact) for x in (key, value))
    gradient, result, sums = _by_head(grad), _by_head(out), lse.T[None]
    groups, alone = _split(query, keys, calls, window)
    for group in groups:
        parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            group.spread(gradient), group.gather(query), group.gather(key), group.gather(value), group.gather(result),
            group.gather(sums), 0.0, True, scale=scale,
        )  # fmt: skip
        dq.index_copy_(0, group.rows, group.pick(parts[0]).to(exact))
        for whole, found in ((dk, parts[1]), (dv, parts[2])):
            whole.index_add_(0, group.places, _flat(found).to(exact))
    for piece in _pieces(keys, alone, window):
        rows, asked, before = piece.rows, piece.queries, piece.num_queries - piece.size
        given = _take(gradient, rows)
        if before:  # queries that are there for the shape of the mask: no gradient comes from them
            given = F.pad(given, (0, 0, before, 0))
        parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            given, _take(query, asked), _take(key, piece.keys), _take(value, piece.keys), _take(result, asked),
            _take(sums, asked), 0.0, piece.aligned, attn_mask=piece.mask(query), scale=scale,
        )  # fmt: skip
        of_q, of_k, of_v = (by_token(x) for x in parts)
        if piece.first:
            dq[rows] = of_q[before:]
        else:
            dq[rows] += of_q
        for whole, part in ((dk, of_k), (dv, of_v)):
            if isinstance(piece.keys, slice):
                whole[piece.keys] += part
            else:
                whole.index_add_(0, piece.keys, part.to(exact))
    return dq.to(query.dtype), dk.to(key.dtype), dv.to(value.dtype)


@_backward.register_fake
def _(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, keys: Tensor, calls: Tensor,
    scale: float, window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    of_q, of_k, of_v = (x.new_empty(x.shape[2], x.shape[1], x.shape[3]) for x in (query, key, value))
    return of_q, of_k, of_v


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, keys, calls, ctx.scale, ctx.window = inputs
    ctx.save_for_backward(query, key, value, *output, keys, calls)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.stepverify.attend_segments_backward(grad, *ctx.saved_tensors, ctx.scale, ctx.window)
    return *(x.transpose(0, 1)[None] for x in gradients), None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


class _Padded(NamedTuple):
    """Describe one causal kernel call for N pieces, padded to T tokens.

    Each piece is padded with its own final token, so that no value of one reaches another, not even a NaN. No earlier
    query attends to padding; its own outputs are dropped, and have zero as gradient.

    Attributes:
        places: (N·T,) tokens whose queries and keys it uses.
        rows: (M,) tokens that the call computes.
        cells: (M,) where these are among ``places``.
        longest: T.
    """

    places: Tensor
    rows: Tensor
    cells: Tensor
    longest: int

    def gather(self, heads: Tensor) -> Tensor:
        """Select (N, heads, T, …) from (1, heads, L, …)."""
        chosen = by_token(heads).index_select(0, self.places)
        return chosen.view(-1, self.longest, *chosen.shape[1:]).transpose(1, 2)

    def spread(self, heads: Tensor) -> Tensor:
        """Select the same of the computed tokens, zero elsewhere."""
        tokens = by_token(heads)
        whole = tokens.new_zeros(len(self.places), *tokens.shape[1:])
        whole.index_copy_(0, self.cells, tokens.index_select(0, self.rows))
        return whole.view(-1, self.longest, *tokens.shape[1:]).transpose(1, 2)

    def pick(self, heads: Tensor) -> Tensor:
        """Select the (M, heads, …) computed tokens from (N, heads, T, …)."""
        return _flat(heads).index_select(0, self.cells)


def _split(query: Tensor, keys: Tensor, calls: Tensor, window: int | None) -> tuple[tuple[_Padded, ...], Tensor]:
    """Return padded calls, and the calls for single pieces; with a window all are of these."""
    if window is not None:
        return (), calls
    return _plan(keys.numpy().tobytes(), calls.numpy().tobytes(), query.shape[1] * query.shape[3])


@lru_cache(maxsize=4)
def _plan(keys: bytes, calls: bytes, width: int) -> tuple[tuple[_Padded, ...], Tensor]:
    """Plan a batch's calls once for all layers and both passes."""
    tokens, table = np.frombuffer(keys, np.int64), np.frombuffer(calls, np.int64).reshape(-1, 5)
    groups, alone = padded_groups(table, width)
    return tuple(_padded(tokens, group) for group in groups), torch.from_numpy(alone)


def _padded(keys: np.ndarray, calls: np.ndarray) -> _Padded:
    begin, end, start, stop, _ = calls.T[..., None]
    place = np.arange(longest := int((end - begin).max()))
    places = keys[np.minimum(begin + place, end - 1)]
    computed = (place < end - begin) & (place >= end - begin - (stop - start))
    used, rows, cells = map(torch.from_numpy, (places.ravel(), places[computed], np.flatnonzero(computed)))
    return _Padded(used, rows, cells, longest)


def _flat(heads: Tensor) -> Tensor:
    """Transpose (N, heads, T, …) to (N·T, heads, …)."""
    return heads.transpose(1, 2).flatten(0, 1)


class _Piece(NamedTuple):
    """Describe one kernel call.

    Attributes:
        rows: tokens that the call computes.
        queries: the query tokens: ``rows``, in a causal call without a window after the other tokens whose keys it
            uses.
        keys: tokens whose keys it uses; a slice if they are contiguous.
        num_queries: length of ``queries``.
        num_keys: length of ``keys``.
        first: whether it is the first call for these tokens, which is causal.
        window: number of tokens to attend to; None is all.
    """

    rows: slice
    queries: slice | Tensor
    keys: slice | Tensor
    num_queries: int
    num_keys: int
    first: bool
    window: int | None

    @property
    def size(self) -> int:
        """Return the number of tokens that the call computes."""
        return self.rows.stop - self.rows.start

    @property
    def aligned(self) -> bool:
        """Check whether the kernel's own causal mask is correct.

        It is aligned at the first query and key.
        """
        return self.first and self.window is None

    def mask(self, like: Tensor) -> Tensor | None:
        """Make the additive (size, num_keys) mask of the window; None without one.

        It is 0 where a query attends to a key, minus infinity elsewhere.
        """
        if self.window is None:
            return None
        gap = torch.arange(self.num_keys - self.size, self.num_keys)[:, None] - torch.arange(self.num_keys)
        hidden = (gap < 0) | (gap >= self.window)
        return torch.zeros(hidden.shape, dtype=like.dtype).masked_fill_(hidden, float("-inf"))


def _pieces(keys: Tensor, calls: Tensor, window: int | None) -> Iterator[_Piece]:
    places = keys.numpy()  # reading one number of a tensor costs as much as a small kernel
    for begins, end, start, stop, causal in calls.tolist():
        rows, size = slice(start, stop), stop - start
        begin = begins if window is None else max(begins, end - size - window + 1)
        low, high, number = int(places[begin]), int(places[end - 1]) + 1, end - begin
        seen = slice(low, high) if high - low == number else keys[begin:end]
        if causal and window is None:
            yield _Piece(rows, seen, seen, number, number, True, None)
        else:
            yield _Piece(rows, rows, seen, size, number, bool(causal), window)


def _take(heads: Tensor, tokens: slice | Tensor) -> Tensor:
    """Some tokens of (1, heads, L, …)."""
    if isinstance(tokens, slice):
        return heads.narrow(2, tokens.start, tokens.stop - tokens.start)
    return heads[0].transpose(0, 1)[tokens].transpose(0, 1)[None]


def by_token(heads: Tensor) -> Tensor:
    """Transpose (1, heads, L, D) to (L, heads, D)."""
    return heads[0].transpose(0, 1)


def _by_head(tokens: Tensor) -> Tensor:
    """Transpose (L, heads, D) to (1, heads, L, D), as kernels expect."""
    return tokens.transpose(0, 1)[None]


def _exact(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype for sums over pieces, at least single precision."""
    return torch.promote_types(dtype, torch.float32)
