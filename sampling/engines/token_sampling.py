"""Sample tokens with one uniform number each, a hash of seed and position."""

from __future__ import annotations

import torch
from torch import Tensor

from sampling.engines.base import GOLDEN, SamplingOptions


def sample_tokens(logits: Tensor, seeds: Tensor, step: int, options: SamplingOptions) -> Tensor:
    """Sample one token per row by inverting the cumulative distribution.

    The uniform number of a row is a hash of its seed and step.

    Args:
        logits: (R, V).
        seeds: (R,) non-negative 63-bit integers.
        step: number of tokens sampled before.
        options: temperature, top_p and top_k.

    Returns:
        (R,) token ids.
    """
    if options.temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits / options.temperature).softmax(-1)
    if options.top_k or options.top_p < 1:
        ordered, order = probabilities.sort(-1, descending=True)
        if options.top_k:
            ordered[:, options.top_k :] = 0
            ordered /= ordered.sum(-1, keepdim=True)  # top_p applies to the probability that top_k leaves
        # Keep a token if those before it have less than top_p in total: the first one always stays.
        ordered[ordered.cumsum(-1) - ordered >= options.top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter_(-1, order, ordered)
    cumulative = probabilities.double().cumsum(-1)
    target = uniform(seeds, step)[:, None] * cumulative[:, -1:]
    # right=True: a token of probability 0 is never sampled, not even for a target of exactly 0.
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)


def uniform(seeds: Tensor, step: int) -> Tensor:
    """Return uniform numbers in [0, 1), shape (R,), from seeds and step.

    They are hashed by SplitMix64's finaliser (Steele et al. 2014).
    """
    x = seeds + wrap(GOLDEN * (step + 1))
    x = (x ^ _shift(x, 30)) * wrap(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * wrap(0x94D049BB133111EB)
    x = x ^ _shift(x, 31)
    return _shift(x, 11).double() * 2.0**-53


def wrap(value: int) -> int:
    """Return a 64-bit pattern as torch's signed integer."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right logically, filling with zeros; torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
