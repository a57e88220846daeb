"""Gradient checkpointing of decoder layers: whole, or of their pointwise operations alone."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import CheckpointPolicy, SelectiveCheckpointContext, create_selective_checkpoint_contexts

from stepverify.memory import SavedBytes
from stepverify.records import InputError

# Operators whose results are kept: matrix products, with the argument that their sums run along, and fused attention.
_PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "_scaled_mm": 0, "_grouped_mm": 0, "_scaled_grouped_mm": 0}
_ATTENTION = (
    "attend_segments", "_flash_attention_forward", "_efficient_attention_forward", "_cudnn_attention_forward",
    "_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
)  # fmt: skip
_SHORT = 64  # terms of a sum: computed again as fast as read again; adapters' second factors, products of heads

_CHOICE = "checkpointed_by_stepverify"  # attribute of models
Checkpointing = Literal["pointwise"] | bool


def checkpoint_layers(model: nn.Module, *, pointwise: bool = False) -> None:
    """Turn gradient checkpointing on, at any time: layers look at a flag in each forward pass.

    Args:
        model: a Hugging Face model, without adapters around it.
        pointwise: keep what matrix products and attention give, and recompute the rest: about half of the memory for 5
            to 15 % of the time (selective activation recomputation: Korthikanti et al. 2022, section 5).

    Raises:
        InputError: the model does not support it.
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if pointwise:
        options["context_fn"] = partial(create_selective_checkpoint_contexts, policy)
    try:
        model.gradient_checkpointing_enable(options)  # type: ignore[operator]
        # Only reentrant checkpoints need it; frozen layers below adapters would run backward for nothing.
        if hasattr(model, "_require_grads_hook"):  # without one, older releases of transformers fail here
            model.disable_input_require_grads()  # type: ignore[operator]
    except ValueError as error:
        raise InputError(f"backbone.gradient_checkpointing: {error}") from None
    setattr(model, _CHOICE, "pointwise" if pointwise else True)


def checkpointing_of(model: nn.Module) -> Checkpointing:
    """Tell what :func:`checkpoint_layers` has turned on last."""
    found: Checkpointing = getattr(model, _CHOICE, False)
    return found


def policy(context: SelectiveCheckpointContext, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Tell whether an operator's result is kept.

    What draws random numbers is not: skipped in the second pass, it would move those of all operators after it.
    """
    name = getattr(operator, "_opname", "")
    if name in _PRODUCTS:
        keeps = args[_PRODUCTS[name]].shape[-1] > _SHORT
    else:
        keeps = name in _ATTENTION and not _drops(operator, args, kwargs)
    if not keeps:
        return CheckpointPolicy.PREFER_RECOMPUTE
    for kept in tree_leaves(context.op_output):
        if isinstance(kept, torch.Tensor):
            SavedBytes.note(kept)
    return CheckpointPolicy.MUST_SAVE


def _drops(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether an attention drops weights."""
    names = [argument.name for argument in operator._schema.arguments]
    return "dropout_p" in names and bool((dict(zip(names, args, strict=False)) | kwargs).get("dropout_p", 0.0))
