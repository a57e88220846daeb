"""Compute attention with a dense (L, L) mask: SDPA, eager, and FlexAttention.

FlexAttention skips empty blocks of the mask.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stepverify.data.batch import Past, Tree
from stepverify.losses import bounded


def sdpa(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, dropout: float, scale: float,
    window: int | None, softcap: float | None,
) -> Tensor:  # fmt: skip
    """Mask the (L, L) products of SDPA.

    Keys are repeated, as no fused kernel masks grouped heads.
    """
    groups = query.shape[1] // key.shape[1]
    return F.scaled_dot_product_attention(
        query, key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1),
        attn_mask=_mask(tree, window, _dense), dropout_p=dropout, scale=scale,
    )  # fmt: skip


def rows(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, dropout: float, scale: float,
    window: int | None, softcap: float | None,
) -> Tensor:  # fmt: skip
    """Unroll sequences to (R, T) causal rows, then select each token.

    Supports dropout of weights.
    """
    groups = query.shape[1] // key.shape[1]
    query, key, value = (x[0].transpose(0, 1)[tree.rows].transpose(1, 2) for x in (query, key, value))
    place = torch.arange(tree.rows.shape[1], device=query.device)
    gap = place[:, None] - place
    mask = None if window is None else (gap >= 0) & (gap < window)
    out = F.scaled_dot_product_attention(
        query, key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1),
        attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scale,
    )  # fmt: skip
    return out.transpose(1, 2).flatten(0, 1)[tree.origin].transpose(0, 1)[None]


def eager(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, dropout: float, scale: float,
    window: int | None, softcap: float | None,
) -> Tensor:  # fmt: skip
    """Compute attention in plain torch, for bounded products and as a reference."""
    groups = query.shape[1] // key.shape[1]
    products = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * scale
    products = bounded(products, softcap).masked_fill(~_mask(tree, window, _dense), float("-inf"))
    weights = F.dropout(products.softmax(-1, dtype=torch.promote_types(query.dtype, torch.float32)), dropout)
    return weights.to(value.dtype) @ value.repeat_interleave(groups, 1)


def flex(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, dropout: float, scale: float,
    window: int | None, softcap: float | None,
) -> Tensor:  # fmt: skip
    """Compute FlexAttention, which skips empty blocks.

    No dropout; no backward pass on a CPU.
    """
    return _flex_functions()[0](
        query, key, value, score_mod=lambda product, *where: bounded(product, softcap),
        block_mask=_mask(tree, window, _blocks), scale=scale, enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip


def _sees(tree: Tree, window: int | None, row: Tensor, column: Tensor) -> Tensor:
    """Check which tokens attend to which; indices of any shapes that broadcast."""
    seen = (column <= row) & (row < tree.end[column])
    return seen if window is None else seen & (tree.depth[row] - tree.depth[column] < window)


def _mask(tree: Tree, window: int | None, make: Callable[[Tree, int | None], Any]) -> Any:
    """Return the mask by ``make``, computed once per batch for all layers."""
    if (make, window) not in tree.masks:
        tree.masks[make, window] = make(tree, window)
    return tree.masks[make, window]


def _dense(tree: Tree, window: int | None) -> Tensor:
    """Make the (L, L) mask, or (L, L + C) with C cached tokens: true where row attends to column."""
    if tree.past is not None:
        return _dense_after(tree, tree.past, window)
    place = torch.arange(len(tree.end), device=tree.end.device)
    return _sees(tree, window, place[:, None], place)


def _dense_after(tree: Tree, past: Past, window: int | None) -> Tensor:
    """Make the mask of tokens after cached ones, from the rows that they are in."""
    row, last = tree.origin // tree.rows.shape[1], tree.depth[:, None]
    place = torch.arange(tree.rows.shape[1], device=row.device)
    seen = place <= last if window is None else (place <= last) & (last - place < window)
    query, at = seen.nonzero(as_tuple=True)
    mask = seen.new_zeros(len(row), len(row) + past.size)
    mask[query, tree.rows[row[query], at]] = True
    return mask


def _blocks(tree: Tree, window: int | None) -> Any:
    """Make the same mask as a block mask of FlexAttention."""
    length = len(tree.end)
    return _flex_functions()[1](
        lambda batch, head, row, column: _sees(tree, window, row, column), None, None, length, length,
        device=tree.end.device,
    )  # fmt: skip


@cache
def _flex_functions() -> tuple[Callable[..., Tensor], Callable[..., Any]]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    return torch.compile(flex_attention), torch.compile(create_block_mask)
