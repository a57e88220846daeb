"""Which kernels an attention runs, by the profiler: for the tests of any device."""

from __future__ import annotations

from typing import Any

import torch

FUSED = {
    "cpu": "aten::_scaled_dot_product_flash_attention_for_cpu",
    "cuda": ("aten::_flash_attention_forward", "aten::_efficient_attention_forward"),
}
# Whatever holds all products of a query and its keys goes through one of these.
UNFUSED = {
    "aten::_scaled_dot_product_attention_math",
    "aten::softmax",
    "aten::_softmax",
    "aten::_safe_softmax",
    "aten::bmm",
}


def attention_inputs(
    length: int, heads: int, groups: int, width: int = 8, *, value_width: int | None = None,
    dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 0,
) -> list[torch.Tensor]:  # fmt: skip
    """Random query, key and value, laid out as a model's linear layers leave them."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(heads, width), (groups, width), (groups, value_width or width)]
    made = [2 * torch.randn(1, length, *shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [x.to(device, dtype).transpose(1, 2).requires_grad_() for x in made]


def operators_of(how: str, tree: Any, inputs: list[torch.Tensor], **options: Any) -> set[str]:
    """Names of the operators of a forward and a backward pass."""
    from transformers import AttentionInterface

    from stepverify.models.attention import register

    attention = AttentionInterface()[register(how)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        attention(None, *inputs, None, tree=tree, **options)[0].sum().backward()
    return {event.key for event in profile.key_averages()}


def assert_fused(how: str, tree: Any, inputs: list[torch.Tensor], **options: Any) -> None:
    """Fail where products of a whole query are held, or no fused kernel ran."""
    names = operators_of(how, tree, inputs, **options)
    fused = FUSED[inputs[0].device.type]
    assert not names & UNFUSED, names & UNFUSED
    assert names & {*([fused] if isinstance(fused, str) else fused)}, names
