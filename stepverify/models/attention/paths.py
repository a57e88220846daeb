"""Compute attention of each token to its path by fused kernels.

There is no mask and no padding. On CPUs each piece of a tree takes a call, and the results for a token are merged by
their log-sum-exp; the backward pass calls the kernels' own with the merged statistics, so that only inputs, output and
log-sum-exp are kept. On NVIDIA GPUs one ragged call computes everything, aligned at the last key of each sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stepverify.data.batch import Tree
from stepverify.models.attention.dense import sdpa

_HALF = (torch.bfloat16, torch.float16)
_FLASH_WIDTH = 256  # largest width of a head for flash kernels on GPUs
_BOTTOM_RIGHT = 2  # causal mask aligned at the last query and key, for ``_efficient_attention_forward``


def paths(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, dropout: float, scale: float,
    window: int | None, softcap: float | None,
) -> Tensor:  # fmt: skip
    """Attend along paths; arguments as in :func:`stepverify.models.attention.attend`.

    Without dropout and softcap. Devices other than CPUs and NVIDIA GPUs have no such kernels and use ``sdpa``.
    """
    wide = value.shape[-1]
    query, key, value = _alike(query, key, value)
    if window is not None and window >= tree.rows.shape[1]:
        window = None
    if query.device.type == "cpu":
        out = _in_segments(query, key, value, tree, scale, window)
    elif query.device.type == "cuda" and (window is None or _takes_flash(query)):
        out = _ragged(query, key, value, tree, scale, window)
    else:
        out = sdpa(query, key, value, tree, 0.0, scale, window, None)
    return out[..., :wide]


def _alike(*heads: Tensor) -> list[Tensor]:
    """Pad heads with zeros to one width, a multiple of 8.

    Fused kernels need that; the products do not change.
    """
    wide = -(-max(x.shape[-1] for x in heads) // 8) * 8
    return [x if x.shape[-1] == wide else F.pad(x, (0, wide - x.shape[-1])) for x in heads]


def _cast(*tensors: Tensor) -> list[Tensor]:
    """Cast to autocast's dtype, as SDPA does."""
    return [x.to(_format(x)) for x in tensors]


def _format(tensor: Tensor) -> torch.dtype:
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


# ── GPUs ──────────────────────────────────────────────────────────────────────────────────────────


def _ragged(query: Tensor, key: Tensor, value: Tensor, tree: Tree, scale: float, window: int | None) -> Tensor:
    """Attend in one call: suffixes as queries, paths as keys."""
    calls, longest = tree.suffixes, tree.rows.shape[1]
    ends = F.pad(calls.calls[:, [3, 1]], (0, 0, 1, 0)).int()
    starts = [ends[:, 0].contiguous(), ends[:, 1].contiguous()]
    # Gather before rounding to half precision, so that gradients are summed in the parameters' precision.
    gathered = [_by_token(x).index_select(0, calls.keys) for x in (key, value)]
    q, k, v = _cast(_by_token(query), *gathered)
    if _takes_flash(query):
        left, right = (-1, -1) if window is None else (window - 1, 0)
        out = torch.ops.aten._flash_attention_forward(
            q, k, v, *starts, longest, longest, 0.0, window is None, False, scale=scale,
            window_size_left=left, window_size_right=right,
        )[0]  # fmt: skip
    else:
        groups = query.shape[1] // key.shape[1]
        out = torch.ops.aten._efficient_attention_forward(
            q[None], k.repeat_interleave(groups, 1)[None], v.repeat_interleave(groups, 1)[None], None,
            *starts, longest, longest, 0.0, _BOTTOM_RIGHT, True, scale=scale,
        )[0][0]  # fmt: skip
    return out.transpose(0, 1)[None]


def _takes_flash(query: Tensor) -> bool:
    """Check whether a GPU's flash kernel applies.

    It needs half precision, a limited head width and compute capability 8.
    """
    return _format(query) in _HALF and query.shape[-1] <= _FLASH_WIDTH and _has_flash(query.device)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_flash(device: torch.device) -> bool:
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)


# ── CPUs ──────────────────────────────────────────────────────────────────────────────────────────


def _in_segments(query: Tensor, key: Tensor, value: Tensor, tree: Tree, scale: float, window: int | None) -> Tensor:
    """Attend in several calls, with shared prefixes computed once.

    With a window, each suffix takes one call, whose keys the window limits.
    """
    calls, cast = tree.segments if window is None else tree.suffixes, _cast(query, key, value)
    out, _ = torch.ops.stepverify.attend_segments(*cast, calls.keys, calls.calls, scale, window)
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
    for piece in _pieces(keys, calls, window):
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
    dq = torch.empty_like(_by_token(query), dtype=exact)
    dk, dv = (torch.zeros_like(_by_token(x), dtype=exact) for x in (key, value))
    gradient, result, sums = _by_head(grad), _by_head(out), lse.T[None]
    for piece in _pieces(keys, calls, window):
        rows, asked, before = piece.rows, piece.queries, piece.num_queries - piece.size
        given = _take(gradient, rows)
        if before:  # queries that are there for the shape of the mask: no gradient comes from them
            given = F.pad(given, (0, 0, before, 0))
        parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            given, _take(query, asked), _take(key, piece.keys), _take(value, piece.keys), _take(result, asked),
            _take(sums, asked), 0.0, piece.aligned, attn_mask=piece.mask(query), scale=scale,
        )  # fmt: skip
        of_q, of_k, of_v = (_by_token(x) for x in parts)
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


def _by_token(heads: Tensor) -> Tensor:
    """Transpose (1, heads, L, D) to (L, heads, D)."""
    return heads[0].transpose(0, 1)


def _by_head(tokens: Tensor) -> Tensor:
    """Transpose (L, heads, D) to (1, heads, L, D), as kernels expect."""
    return tokens.transpose(0, 1)[None]


def _exact(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype for sums over pieces, at least single precision."""
    return torch.promote_types(dtype, torch.float32)
