"""Attention along a tree of tokens: four ways to compute the same thing, behind transformers' attention interface.

A model that is loaded with :func:`register`'s name as its attention reads a whole batch as one row of L tokens, each
seeing those that it continues (:class:`stepverify.data.batch.Tree`). All other layers see each shared token once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepverify.data.batch import Tree
from stepverify.losses import bounded
from stepverify.records import InputError

Attention = Literal["auto", "paths", "flex", "sdpa", "eager"]
PREFIX = "stepverify_"  # of our names in transformers' attention interface


# Further terms of the products, by transformers' names: sinks and position biases.
_EXTRAS = ("s_aux", "position_bias", "alibi", "head_mask")


def register(attention: Attention) -> str:
    """Make an attention known to transformers; gives the name to load models with.

    ``auto`` is ``paths``: its cost grows with a solution's length instead of a pack's, it has a backward pass
    everywhere, and each kernel of SDPA runs it.
    """
    from transformers import AttentionInterface

    how = "paths" if attention == "auto" else attention
    function = {"paths": _paths, "flex": _flex, "sdpa": _sdpa, "eager": _eager}[how]
    AttentionInterface.register(name := f"{PREFIX}{how}", partial(attend, how=function))
    return name


@contextmanager
def plain(config: Any, own: str) -> Iterator[None]:
    """Transformers' ``own`` attention meanwhile: it masks padding, which rows that are decoded have."""
    ours = config._attn_implementation
    config._attn_implementation = own
    try:
        yield
    finally:
        config._attn_implementation = ours


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    dropout: float = 0.0, scaling: float | None = None, sliding_window: int | None = None,
    softcap: float | None = None, tree: Tree | None = None, *, how: Callable[..., Tensor], **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """One layer's attention, in the form that transformers calls.

    Args:
        module: the attention layer.
        query: (1, H, L, D) after rotary positions.
        key: (1, G, L, D) with G heads that serve H / G query heads each.
        value: (1, G, L, D).
        attention_mask: None; a mask that a model makes itself says more than a tree.
        dropout: of attention weights.
        scaling: of the products.
        sliding_window: how many tokens along the path are seen, this one included; None sees all.
        softcap: bound of the products (Gemma 2).
        tree: how the tokens continue each other.
        how: one of the four functions below.
        kwargs: what other models pass.

    Returns:
        (1, L, H, D), and no weights.

    Raises:
        InputError: no tree, or more than this computes: the model's own attention would give other scores.
    """
    if tree is None:
        raise InputError("its attention is called without the tree of tokens")
    if attention_mask is not None:
        raise InputError("its attention has a mask of its own")
    if extra := [name for name, value in kwargs.items() if value is not None and name in _EXTRAS]:
        raise InputError(f"its attention has {', '.join(extra)}, which no tree is computed with")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if softcap is not None and how in (_paths, _sdpa):
        how = _eager  # no fused kernel bounds its products
    return how(query, key, value, tree, dropout, scale, sliding_window, softcap).transpose(1, 2), None


def _sees(tree: Tree, window: int | None, row: Tensor, column: Tensor) -> Tensor:
    """Whether tokens see others; indices of any shapes that go together."""
    seen = (column <= row) & (row < tree.end[column])
    return seen if window is None else seen & (tree.depth[row] - tree.depth[column] < window)


def _mask(tree: Tree, window: int | None, make: Callable[[Tree, int | None], Any]) -> Any:
    """The mask that ``make`` gives, made once a batch for all layers."""
    if (make, window) not in tree.masks:
        tree.masks[make, window] = make(tree, window)
    return tree.masks[make, window]


def _dense(tree: Tree, window: int | None) -> Tensor:
    """(L, L) true where the row's token sees the column's."""
    place = torch.arange(len(tree.end), device=tree.end.device)
    return _sees(tree, window, place[:, None], place)


def _blocks(tree: Tree, window: int | None) -> Any:
    """FlexAttention's mask of the same."""
    length = len(tree.end)
    return _flex_functions()[1](
        lambda batch, head, row, column: _sees(tree, window, row, column), None, None, length, length,
        device=tree.end.device,
    )  # fmt: skip


def _paths(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, dropout: float, scale: float,
    window: int | None, softcap: float | None,
) -> Tensor:  # fmt: skip
    """Unroll the sequences for the attention alone: (B, T) rows, causal and without a mask, then pick each token once.

    Quadratic in the length of a solution, not of the pack; each kernel of SDPA can run it.
    """
    rows = [x[0].transpose(0, 1)[tree.rows].transpose(1, 2) for x in (query, key, value)]  # (B, heads, T, D)
    length = tree.rows.shape[1]
    mask = None
    if window is not None and length > window:
        place = torch.arange(length, device=query.device)
        gap = place[:, None] - place
        mask = (gap >= 0) & (gap < window)
    out = F.scaled_dot_product_attention(
        rows[0], rows[1], rows[2], attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return out.transpose(1, 2).flatten(0, 1)[tree.origin].transpose(0, 1)[None]


def _sdpa(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, dropout: float, scale: float,
    window: int | None, softcap: float | None,
) -> Tensor:  # fmt: skip
    """The exact (L, L) mask."""
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=_mask(tree, window, _dense), dropout_p=dropout, scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip


def _eager(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, dropout: float, scale: float,
    window: int | None, softcap: float | None,
) -> Tensor:  # fmt: skip
    """Written out, for models whose products are bounded, and to compare with."""
    groups = query.shape[1] // key.shape[1]
    products = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * scale
    products = bounded(products, softcap).masked_fill(~_mask(tree, window, _dense), float("-inf"))
    weights = F.dropout(products.softmax(-1, dtype=torch.float32).to(query.dtype), dropout)
    return weights @ value.repeat_interleave(groups, 1)


def _flex(
    query: Tensor, key: Tensor, value: Tensor, tree: Tree, dropout: float, scale: float,
    window: int | None, softcap: float | None,
) -> Tensor:  # fmt: skip
    """FlexAttention, skipping blocks in which nothing is seen. No dropout, no backward pass on CPU."""
    return _flex_functions()[0](
        query, key, value, score_mod=lambda product, *where: bounded(product, softcap),
        block_mask=_mask(tree, window, _blocks), scale=scale, enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip


@cache
def _flex_functions() -> tuple[Callable[..., Tensor], Callable[..., Any]]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    return torch.compile(flex_attention), torch.compile(create_block_mask)
