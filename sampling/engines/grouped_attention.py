"""Attend from the newest token of each row without a copy of the cached keys for every query head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

_NAME = "stepverify_grouped"  # in transformers' attention interface
_REPLACED = "sdpa"


def grouped(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, dropout: float = 0.0,
    scaling: float | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Compute one layer's attention; with one query a row, a group's heads are the queries of its key head.

    Where rows are padded, transformers' own repeats keys and values for each query head (grouped-query attention:
    Ainslie et al. 2023): at every step a copy of the whole cache, a third of the time of a forward pass.

    Args:
        module: the attention layer.
        query: (B, H, L, D).
        key: (B, G, S, D), for H / G query heads each.
        value: (B, G, S, D).
        attention_mask: (B, 1, L, S) or None.
        dropout: dropout of attention weights.
        scaling: factor of the products.
        kwargs: arguments for transformers' own.

    Returns:
        (B, L, H, D), and no weights.
    """
    rows, heads, length, size = query.shape
    groups = key.shape[1]
    if length > 1 or groups == heads or dropout or attention_mask is None or attention_mask.shape[1] > 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    query = query.view(rows, groups, heads // groups, size)
    found = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
    return found.reshape(rows, 1, heads, value.shape[-1]), None


@contextmanager
def grouped_attention(network: Any) -> Iterator[None]:
    """Let a model attend by :func:`grouped` meanwhile, where it has transformers' ``sdpa``."""
    config = network.config.get_text_config()
    if config._attn_implementation != _REPLACED:
        yield
        return
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = _REPLACED


AttentionInterface.register(_NAME, grouped)
AttentionMaskInterface.register(_NAME, sdpa_mask)
