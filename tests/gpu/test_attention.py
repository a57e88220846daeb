"""Attention along a tree of tokens on the card: each way against a reference in float64, forward and backward.

The reference reads each sequence alone, by a softmax written out in a few lines on the CPU. Both start from the same
rounded inputs, so errors are those of the kernels:

- float32, TF32 off: products of 32 and 600 terms; 2e-5 of the norm, forward and backward.
- bfloat16: weights of attention and the result are rounded by 2^-9 each, the gradient's three products likewise:
  2^-7 of the norm forward, 2^-6 backward. ``eager`` rounds the products of queries and keys too, which are up to 4 in
  size before the softmax: four times as much.

Budget: 60 s, two thirds of it for compiling FlexAttention.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from stepverify.data.batch import lay_out
from stepverify.data.tree import share
from stepverify.models.attention import register
from tests.gpu.work import distance

pytestmark = pytest.mark.gpu

HEADS, WIDTH = 8, 64
CASES = {
    "MHA": {"groups": 8}, "GQA": {"groups": 2}, "MQA": {"groups": 1},
    "MHA, window": {"groups": 8, "window": 24}, "GQA, window": {"groups": 2, "window": 24},
    "GQA, cap": {"groups": 2, "cap": 3.0}, "GQA, window and cap": {"groups": 2, "window": 24, "cap": 3.0},
}  # fmt: skip
FLEX = ["GQA", "MHA, window", "GQA, window and cap"]  # each is compiled


def forest_of(seed: int = 0, prompt: int = 40, samples: int = 6, longest: int = 90):
    """Two problems with some samples each; samples share the prompt, and first steps by chance."""
    rng = np.random.default_rng(seed)
    sequences = []
    for _ in range(2):
        start, first = rng.integers(3, 99, prompt).tolist(), rng.integers(3, 99, 12).tolist()
        for i in range(samples):
            more = rng.integers(3, 99, rng.integers(5, longest)).tolist()
            sequences.append(start + (first if i % 2 else []) + more)
    return share(sequences)


def inputs(length: int, groups: int, dtype: torch.dtype, seed: int = 0):
    """Queries, keys, values and the gradient of the result, on the CPU, rounded to the number format."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(1, heads, length, WIDTH) for heads in (HEADS, groups, groups)] + [(1, length, HEADS, WIDTH)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def reference(forest, tensors, window, cap):
    """Result and gradients in float64, each sequence by itself."""
    query, key, value, upstream = (t.double() for t in tensors)
    leaves = [t.requires_grad_() for t in (query, key, value)]
    out = torch.zeros_like(upstream)
    seen = torch.zeros(len(forest.ids), dtype=torch.bool)
    for path in forest.paths:
        at = torch.from_numpy(np.asarray(path))
        q, k, v = (t[0][:, at] for t in leaves)
        repeat = HEADS // k.shape[0]
        products = q @ k.repeat_interleave(repeat, 0).transpose(1, 2) * WIDTH**-0.5
        products = products if cap is None else cap * torch.tanh(products / cap)
        gap = torch.arange(len(at))[:, None] - torch.arange(len(at))
        hidden = (gap < 0) | (gap >= (window or len(at) + 1))
        states = products.masked_fill(hidden, float("-inf")).softmax(-1) @ v.repeat_interleave(repeat, 0)
        new = ~seen[at]  # a shared token counts once
        seen[at] = True
        out = out.index_put((torch.zeros_like(at[new]), at[new]), states.transpose(0, 1)[new])
    out.backward(upstream)
    return [out.detach(), *(t.grad for t in leaves)]


def ours(how, forest, tensors, window, cap, device, *, backward=True):
    """Result and gradients of our attention, called as transformers calls it."""
    from transformers import AttentionInterface

    function = AttentionInterface()[register(how)]
    leaves = [t.detach().to(device).requires_grad_(backward) for t in tensors[:3]]
    tree = lay_out(forest).to(device)
    out, _ = function(torch.nn.Module(), *leaves, None, sliding_window=window, softcap=cap, tree=tree)
    if backward:
        out.backward(tensors[3].to(device))
    return [out.detach(), *(t.grad for t in leaves if backward)]


def bounds(dtype: torch.dtype, how: str) -> tuple[float, float]:
    if dtype == torch.float32:
        return 2e-5, 2e-5
    return (2**-5, 2**-4) if how == "eager" else (2**-7, 2**-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", ["paths", "sdpa", "eager"])
def test_forward_and_backward_equal_the_reference(how, case, dtype, device):
    groups, window, cap = (CASES[case].get(key) for key in ("groups", "window", "cap"))
    check(how, forest_of(), groups, window, cap, dtype, device, backward=True)


def check(how, forest, groups, window, cap, dtype, device, *, backward):
    tensors = inputs(len(forest.ids), groups, dtype)
    wanted = reference(forest, tensors, window, cap)
    found = ours(how, forest, tensors, window, cap, device, backward=backward)
    forward, gradient = bounds(dtype, "eager" if cap is not None and how != "flex" else how)
    assert found[0].dtype == dtype
    assert distance(found[0], wanted[0]) < forward
    for name, one, other in zip(("query", "key", "value"), found[1:], wanted[1:], strict=False):
        assert distance(one, other) < gradient, name


@pytest.mark.seconds(120)  # each case is compiled, forward and backward
@pytest.mark.parametrize("case", FLEX)
def test_flex_equals_the_reference(case, device, record, monkeypatch):
    """In float32 and bfloat16; on a CPU, where FlexAttention has no backward pass, forward, in float32, not compiled."""
    if device == "cpu":
        monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    groups, window, cap = (CASES[case].get(key) for key in ("groups", "window", "cap"))
    start = time.perf_counter()
    for dtype in (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,):
        check("flex", forest_of(), groups, window, cap, dtype, device, backward=device == "cuda")
    record(f"flex, {case}", seconds_with_compiling=time.perf_counter() - start)


@pytest.mark.seconds(120)
@pytest.mark.cuda("compiling for each length takes minutes on a CPU")
def test_flex_is_not_compiled_for_every_length(device, record):
    """Ten packs of other lengths, down to 30 tokens: correct each time, and compiled four times at most.

    FlexAttention is compiled for the first length, and for any from the second on; its mask likewise.
    """
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    start = time.perf_counter()
    for i in range(10):
        forest = forest_of(seed=i, prompt=10 + 17 * i, samples=1 + i, longest=10 + 20 * i)
        check("flex", forest, 2, None, None, torch.bfloat16, device, backward=True)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    record("flex, ten lengths", graphs=graphs, seconds=time.perf_counter() - start)
    assert graphs <= 4


def kernels(function) -> set[str]:
    """The attention operators that run in a call, by their names in ATen."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        function()
    marks = ("_scaled_dot_product", "_flash_attention", "_efficient_attention", "_cudnn_attention")
    return {event.key for event in profiler.key_averages() if any(mark in event.key for mark in marks)}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("case", ["MHA", "GQA", "MQA", "MHA, window", "GQA, window"])
def test_which_kernel_runs(case, dtype, device, record):
    """``paths`` never takes SDPA's math kernel, which holds every product of queries and keys; its name is recorded."""
    groups, window = (CASES[case].get(key) for key in ("groups", "window"))
    forest = forest_of()
    tensors = inputs(len(forest.ids), groups, dtype)
    found = kernels(lambda: ours("paths", forest, tensors, window, None, device))
    short = sorted(name.removeprefix("aten::").removeprefix("_scaled_dot_product_") for name in found)
    record(f"kernels of paths, {case}, {str(dtype).removeprefix('torch.')}", operators=" ".join(short))
    assert found
    assert not [name for name in found if "_math" in name]
