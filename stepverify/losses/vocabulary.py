"""Compute likelihoods under a large vocabulary without holding all logits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def token_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *,
    scale: float = 1.0, softcap: float | None = None, chunk: int | None = None,
) -> Tensor:  # fmt: skip
    """Compute the negative log-likelihood of target tokens without holding all logits.

    Logits are computed for ``chunk`` positions at a time: peak memory is chunk × vocabulary, not positions ×
    vocabulary. The backward pass recomputes them if matrix or bias are trained. If both are frozen, as with adapters,
    each position's gradient is computed together with its value, and nothing is recomputed.

    Args:
        hidden: (M, D) hidden states at the positions before the targets.
        weight: (V, D) output matrix.
        bias: (V,) or None.
        targets: (M,) token ids.
        scale: factor of the logits (Granite, Cohere).
        softcap: bound of the scaled logits (Gemma 2).
        chunk: positions at a time; None takes as many as make 32 Mi logits.

    Returns:
        (M,) in nats.
    """
    nll = partial(F.cross_entropy, reduction="none")
    return _of_logits(nll, hidden, weight, bias, targets.long(), scale=scale, softcap=softcap, chunk=chunk)


def log_partition(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, *,
    scale: float = 1.0, softcap: float | None = None, chunk: int | None = None,
) -> Tensor:  # fmt: skip
    """Compute the log-sum-exp of the logits; arguments and memory as :func:`token_nll`.

    Returns:
        (M,) in nats.
    """
    return _of_logits(
        lambda logits: logits.logsumexp(-1), hidden, weight, bias, scale=scale, softcap=softcap, chunk=chunk
    )


def _of_logits(
    function: Callable[..., Tensor], hidden: Tensor, weight: Tensor, bias: Tensor | None, *others: Tensor,
    scale: float, softcap: float | None, chunk: int | None,
) -> Tensor:  # fmt: skip
    """Compute a function of each position's logits and its row of ``others``.

    Arguments and memory as :func:`token_nll`.
    """
    chunk = chunk or max(1, (1 << 25) // len(weight))
    frozen = not (weight.requires_grad or (bias is not None and bias.requires_grad))
    device = weight.device.type
    if frozen and torch.is_autocast_enabled(device):
        # Autocast caches casts of trained parameters only, and would repeat this one for each chunk.
        weight = weight.to(torch.get_autocast_dtype(device))

    def piece(states: Tensor, *rest: Tensor) -> Tensor:
        return function(bounded(F.linear(states, weight, bias).float(), softcap, scale), *rest)

    if frozen and torch.is_grad_enabled() and hidden.requires_grad:
        return _RowByRow.apply(piece, chunk, hidden, *others)
    if len(hidden) <= chunk:
        return piece(hidden, *others)
    parts = zip(*(t.split(chunk) for t in (hidden, *others)), strict=True)
    return torch.cat([checkpoint(piece, *part, use_reentrant=False) for part in parts])


class _RowByRow(torch.autograd.Function):
    """Compute gradients together with values, for functions of single rows.

    Each output depends on its own row of ``hidden`` and on nothing else that is trained. Its gradient is then known up
    to the factor that the backward pass brings, and computed while the logits are in memory.
    """

    @staticmethod
    def forward(ctx: Any, piece: Callable[..., Tensor], chunk: int, hidden: Tensor, *others: Tensor) -> Tensor:
        values, slopes = [], []
        for states, *rest in zip(*(t.split(chunk) for t in (hidden, *others)), strict=True):
            with torch.enable_grad():
                leaf = states.detach().requires_grad_()
                value = piece(leaf, *rest)
                slopes.extend(torch.autograd.grad(value.sum(), leaf))
            values.append(value.detach())
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return None, None, (gradient[:, None] * slopes).to(slopes.dtype), *[None] * (len(ctx.needs_input_grad) - 3)


def bounded(logits: Tensor, softcap: float | None, scale: float = 1.0) -> Tensor:
    """Scale logits, then bound them smoothly within ±``softcap``; None does not bound."""
    logits = logits if scale == 1.0 else logits * scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)
