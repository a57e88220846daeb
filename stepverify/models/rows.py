"""Compute prefix trees as padded rows, without prefix packs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepverify.data.batch import Tree
from stepverify.records import InputError


def decoder_of(model: nn.Module) -> nn.Module:
    """Find the part of a model that computes the last hidden states.

    Transformers' ``get_decoder`` goes by names, and finds another part for some models.
    """
    from transformers import PreTrainedModel

    found: nn.Module = model.get_decoder()  # type: ignore[operator]
    if isinstance(found, PreTrainedModel) and found is not model:
        return found
    parts = [child for child in model.children() if isinstance(child, PreTrainedModel)]
    return max(parts, key=lambda part: sum(p.numel() for p in part.parameters()), default=found)


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Find the decoder's layers: its largest list of modules, under any name."""
    lists = [module for module in decoder_of(model).modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda found: sum(p.numel() for p in found.parameters()))


def unrolled(decoder: nn.Module, input_ids: Tensor, tree: Tree, limit: int | None = None) -> Tensor:
    """Run a decoder over each sequence of a tree as a row.

    Args:
        decoder: a Hugging Face decoder with an attention of transformers.
        input_ids: (L,) token ids.
        tree: the prefix tree of the tokens.
        limit: longer sequences get a forward pass of their own, see :func:`row_limit`.

    Returns:
        (L, D) hidden states.

    Raises:
        InputError: rows longer than the limit share a prefix, whose hidden states then differ.
    """
    width = tree.rows.shape[1]
    lengths = tree.depth[tree.rows[:, -1]] + 1
    ids = input_ids[tree.rows]
    mask = (torch.arange(width, device=ids.device) < lengths[:, None]).long()
    if limit is None or width <= limit:
        reset_rope(decoder)
        states = _run(decoder, ids, mask)
    else:
        if tree.shared:
            raise InputError(f"sequences longer than {limit} tokens must not share prefixes in this model's batches")
        sizes = lengths.tolist()
        groups = _groups(sizes, limit)
        kept: dict[int, Tensor] = {}
        for group in groups:
            longest = max(sizes[i] for i in group)
            reset_rope(decoder)
            part = _run(decoder, ids[group, :longest], mask[group, :longest])
            kept |= zip(group, F.pad(part, (0, 0, 0, width - longest)), strict=True)
        states = torch.stack([kept[i] for i in range(len(ids))])
    return states.flatten(0, 1)[tree.origin]


def num_passes(tree: Tree, limit: int) -> int:
    """Count the forward passes of :func:`unrolled`."""
    return len(_groups((tree.depth[tree.rows[:, -1]] + 1).tolist(), limit))


def idle(decoder: nn.Module, input_ids: Tensor) -> Tensor:
    """Run a forward pass over one token without effect on the result.

    Needed if forward passes are collective and another rank runs more of them.
    """
    reset_rope(decoder)
    ids = input_ids[:1][None]
    return 0.0 * _run(decoder, ids, torch.ones_like(ids)).sum()


def _groups(lengths: list[int], limit: int) -> list[list[int]]:
    """Group rows that go through the decoder together; long rows are separate."""
    groups = [[i] for i, length in enumerate(lengths) if length > limit]
    short = [i for i, length in enumerate(lengths) if length <= limit]
    return [*groups, short] if short else groups


def _run(decoder: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    takes = inspect.signature(decoder.forward).parameters
    inputs = {"attention_mask": mask} if "attention_mask" in takes else {}
    return decoder(input_ids=ids, use_cache=False, **inputs).last_hidden_state


def row_limit(decoder: nn.Module) -> int | None:
    """Return the longest row in tokens whose rotary positions ignore its length.

    Beyond it, ``dynamic`` and ``longrope`` scale the positions of all tokens by the length of the row. None if there is
    no limit.
    """
    limits: list[int] = []
    modules: Iterator[Any] = decoder.modules()
    for module in modules:
        kinds = getattr(module, "rope_type", None)
        for layer, kind in kinds.items() if isinstance(kinds, dict) else [(None, kinds)]:
            if not isinstance(kind, str) or not ("dynamic" in kind or kind == "longrope"):
                continue
            stated = module.config.rope_parameters if layer is None else module.config.rope_parameters[layer]
            limit = None if "dynamic" in kind else stated.get("original_max_position_embeddings")
            known: Any = limit or getattr(module, "original_max_seq_len", 0)
            limits.append(int(known))
    return min(limits, default=None)


def reset_rope(decoder: nn.Module) -> None:
    """Reset dynamic rotary positions, which otherwise keep the longest row's scale."""
    for module in decoder.modules():
        kind = getattr(module, "rope_type", None)
        for layer, name in kind.items() if isinstance(kind, dict) else [("", kind)]:
            if isinstance(name, str) and "dynamic" in name:
                prefix = f"{layer}_" if layer else ""
                if (frequencies := getattr(module, f"{prefix}original_inv_freq", None)) is None:
                    continue  # code that came with the weights
                setattr(module, f"{prefix}inv_freq", frequencies.to(getattr(module, f"{prefix}inv_freq").device))
                setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
