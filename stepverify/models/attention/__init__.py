"""Compute attention over a prefix tree, by transformers' attention interface.

There are four implementations with equal results. A model that is loaded with :func:`register`'s name as its attention
computes a whole batch as one row of L tokens, each attending to the tokens that it continues
(:class:`stepverify.data.batch.Tree`). All other layers compute each shared token once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from stepverify.data.batch import Tree
from stepverify.models.attention.dense import eager, flex, rows, sdpa
from stepverify.models.attention.paths import paths
from stepverify.records import InputError

__all__ = ["PREFIX", "Attention", "attend", "plain", "register"]

Attention = Literal["auto", "paths", "flex", "sdpa", "eager"]
PREFIX = "stepverify_"  # prefix of our names in transformers' attention interface


# Unsupported terms of the products, by transformers' names: sinks and position biases.
_EXTRAS = ("s_aux", "position_bias", "alibi", "head_mask")


def register(attention: Attention) -> str:
    """Register an attention with transformers; return the name to load models with.

    ``auto`` is ``paths``: its cost grows with a solution's length instead of a pack's, it has a backward pass on all
    devices, and uses a flash kernel in each dtype.
    """
    from transformers import AttentionInterface

    how = "paths" if attention == "auto" else attention
    function = {"paths": paths, "flex": flex, "sdpa": sdpa, "eager": eager}[how]
    AttentionInterface.register(name := f"{PREFIX}{how}", partial(attend, how=function))
    return name


@contextmanager
def plain(config: Any, own: str) -> Iterator[None]:
    """Use transformers' ``own`` attention meanwhile.

    It masks padding, which decoded rows have.
    """
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
    """Compute one layer's attention, with the signature that transformers calls.

    Args:
        module: the attention layer.
        query: (1, H, L, D) after rotary positions.
        key: (1, G, L, D) with G heads for H / G query heads each; ``tree.past`` adds those of cached tokens.
        value: (1, G, L, E).
        attention_mask: must be None; a mask that a model makes itself holds more than a tree.
        dropout: dropout of attention weights.
        scaling: factor of the products.
        sliding_window: number of tokens along the path to attend to, this one included; None is all.
        softcap: bound of the products (Gemma 2).
        tree: the prefix tree of the tokens.
        how: one of the four implementations.
        kwargs: arguments that other models pass.

    Returns:
        (1, L, H, E), and no weights.

    Raises:
        InputError: no tree, or arguments that this does not compute: the model's own attention would give other scores.
    """
    if tree is None:
        raise InputError("its attention is called without the prefix tree")
    if attention_mask is not None:
        raise InputError("its attention has a mask of its own")
    if extra := [name for name, value in kwargs.items() if value is not None and name in _EXTRAS]:
        raise InputError(f"its attention has {', '.join(extra)}, which prefix packs do not support")
    if tree.past is not None:
        key, value = tree.past.join(key, value)
        how = sdpa if how is flex else how  # whose mask is that of a whole tree
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if softcap is not None and how in (paths, sdpa):
        how = eager  # no fused kernel supports softcap
    elif dropout and how is paths:
        how = rows  # not all kernels support dropout; a solution's matrix is far smaller than a pack's
    return how(query, key, value, tree, dropout, scale, sliding_window, softcap).transpose(1, 2), None
