"""Losses as pure functions of tensors: each returns (sum, count), so that callers normalise once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def token_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *,
    softcap: float | None = None, chunk: int | None = None,
) -> Tensor:  # fmt: skip
    """Negative log-likelihood of each target token, without ever holding all logits.

    Logits are made for ``chunk`` positions at a time: peak memory is chunk × vocabulary, not positions × vocabulary.
    In the backward pass they are recomputed where matrix or bias are trained; where both are frozen, as under adapters,
    each position's derivative is made with its value, and they are not.

    Args:
        hidden: (M, D) hidden states at the positions before the targets.
        weight: (V, D) output matrix.
        bias: (V,) or None.
        targets: (M,) token ids.
        softcap: bound of the logits (Gemma 2).
        chunk: positions at a time; None takes as many as make 32 Mi logits.

    Returns:
        (M,) in nats.
    """
    matrix = _as_computed(weight)

    def piece(h: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(bounded(F.linear(h, matrix, bias).float(), softcap), t, reduction="none")

    return _in_chunks(piece, chunk or _fitting(weight), _frozen(weight, bias), hidden, targets.long())


def log_partition(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, *, softcap: float | None = None, chunk: int | None = None
) -> Tensor:
    """Logarithm of the sum of all exponentiated logits; arguments and memory as :func:`token_nll`.

    Returns:
        (M,) in nats.
    """
    matrix = _as_computed(weight)

    def piece(h: Tensor) -> Tensor:
        return bounded(F.linear(h, matrix, bias).float(), softcap).logsumexp(-1)

    return _in_chunks(piece, chunk or _fitting(weight), _frozen(weight, bias), hidden)


def _fitting(weight: Tensor) -> int:
    """Positions that make 32 Mi logits."""
    return max(1, (1 << 25) // len(weight))


def _frozen(*parameters: Tensor | None) -> bool:
    """Whether none of them is trained."""
    return not any(p is not None and p.requires_grad for p in parameters)


def _as_computed(weight: Tensor) -> Tensor:
    """A frozen matrix as autocast multiplies with it, cast once: autocast itself keeps casts of trained ones only."""
    device = weight.device.type
    if weight.requires_grad or not torch.is_autocast_enabled(device):
        return weight
    return weight.to(torch.get_autocast_dtype(device))


class _RowByRow(torch.autograd.Function):
    """Rows that depend on their own row of ``hidden`` and on nothing else that is trained.

    Its derivative is then known up to the factor that the backward pass brings, and made while the logits are there.
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


def _in_chunks(piece: Callable[..., Tensor], chunk: int, frozen: bool, *tensors: Tensor) -> Tensor:
    """``piece`` of (M, …) tensors, ``chunk`` rows at a time; ``frozen``: only the first tensor has gradients."""
    if frozen and torch.is_grad_enabled() and tensors[0].requires_grad:
        return _RowByRow.apply(piece, chunk, *tensors)
    if len(tensors[0]) <= chunk:
        return piece(*tensors)
    parts = zip(*(t.split(chunk) for t in tensors), strict=True)
    return torch.cat([checkpoint(piece, *part, use_reentrant=False) for part in parts])


def bounded(logits: Tensor, softcap: float | None) -> Tensor:
    """Logits within ±``softcap``, smoothly; None leaves them."""
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def outcome_mse(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Squared error between value and outcome at each token (Cobbe et al. 2021, section 4.2).

    Args:
        logits: (M,) value logits; the value is their sigmoid.
        targets: (M,) outcome of the solution that the token belongs to, in [0, 1].
        weights: (M,) how many solutions each stands for; None is 1 each.
    """
    return weighted((logits.float().sigmoid() - targets).square(), weights)


def outcome_bce(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy between value and outcome; arguments as :func:`outcome_mse`."""
    return weighted(F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none"), weights)


def step_cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None, *, normalized: bool = False
) -> tuple[Tensor, Tensor]:
    """Cross-entropy at the step tags of the label tokens.

    Args:
        logits: (M, 2) logits of the labels negative and positive, or (M, 3) with neutral behind them.
        targets: (M,) probability that the step is right: 0, 1 or a Monte Carlo share; above 1 it is neutral.
        weights: (M,) how many solutions each stands for, times the weight of its class; None is 1 each.
        normalized: the logits are logarithms of probabilities among more tokens than these.
    """
    log_p = logits.float() if normalized else logits.float().log_softmax(-1)
    losses = -(targets * log_p[:, 1] + (1 - targets) * log_p[:, 0])
    if log_p.shape[1] > 2:
        losses = torch.where(targets > 1, -log_p[:, 2], losses)
    return weighted(losses, weights)


def step_mse(values: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Squared distance of each step's value from its target, both (M,) in [0, 1]; weights as above."""
    return weighted((values.float() - targets).square(), weights)


def weighted(losses: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """(M,) losses and weights, or None for 1 each → (sum, count)."""
    weights = torch.ones_like(losses) if weights is None else weights
    return (losses * weights).sum(), weights.sum()
