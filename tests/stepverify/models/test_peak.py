"""The memory that overlays and the large recipe state, computed from the model's configuration."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.utils._python_dispatch import TorchDispatchMode

from stepverify.memory import SavedBytes
from stepverify.models.backbone import without_adapters
from stepverify.models.parallel import shard
from stepverify.models.recompute import checkpoint_layers
from stepverify.models.sharded import Sharding
from tests.helpers.peak import QWEN_7B, pack, peak, process_model, step

CARD = 80e9  # bytes
LAYERS, WIDTH, MLP, KEYS = 28, 3584, 18944, 4 * 128
PARAMETERS = 7_615_616_512  # of the published model
SMALL = {
    "hidden_size": 64, "intermediate_size": 320, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 4096,
}  # fmt: skip


def activations(hidden: int, mlp: int, keys: int, form: str, pointwise: bool = False) -> int:
    """Bytes that a token leaves in a layer, as the overlays say."""
    if pointwise:
        one, stream = (4, 4) if form == "float32" else (2, 4 if form == "mixed" else 2)
        return one * (2 * mlp + 4 * hidden + 2 * keys) + stream * hidden
    if form == "float32":
        return 16 * mlp + 32 * hidden + 8 * keys
    return 8 * mlp + (30 if form == "mixed" else 20) * hidden + 4 * keys


@pytest.mark.parametrize("pointwise", [False, True])
@pytest.mark.parametrize(("mixed", "dtype", "form"), [(False, torch.float32, "float32"), (True, torch.float32, "mixed"), (False, torch.bfloat16, "bfloat16")])  # fmt: skip
def test_activations_of_a_layer_are_those_of_the_formula(
    mixed: bool, dtype: torch.dtype, form: str, pointwise: bool, monkeypatch: pytest.MonkeyPatch
):
    """What two layers more keep, without their parameters' copies of 2 bytes, on a model of another shape, for real.

    Beyond the formula each token keeps some scalars: two reciprocal deviations, and a logarithm for each head. With
    pointwise operations recomputed, copies are made again too, and only the logarithms are kept.
    """
    monkeypatch.setattr("stepverify.models.recompute._SHORT", 16)  # so small a model has no long sums
    batch = pack(512, length=60, prompt=20)
    kept, copies = [], 0
    for layers in (1, 3):
        model = process_model(QWEN_7B | SMALL | {"num_hidden_layers": layers}, dtype=dtype)
        if pointwise:
            checkpoint_layers(model.backbone, pointwise=True)
        saved = SavedBytes()
        with saved:
            step(model, batch, mixed=mixed, stop_before_backward=True)
        copies = 2 * sum(p.numel() for p in model.backbone.model.layers[0].parameters() if p.ndim == 2)
        kept.append(saved.total)
    tokens = len(batch.input_ids)
    found = (kept[1] - kept[0]) / 2 - (copies if mixed and not pointwise else 0)
    assert found == pytest.approx(tokens * activations(64, 320, 32, form, pointwise), rel=0.02)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_recomputing_pointwise_operations_changes_no_gradient(lora: bool, mixed: bool, monkeypatch: pytest.MonkeyPatch):
    """Bit for bit, with dropout in attention and in what layers add, whose random numbers are the first pass's."""
    monkeypatch.setattr("stepverify.models.recompute._SHORT", 16)
    batch, found = pack(256, length=60, prompt=20), []
    model = process_model(QWEN_7B | SMALL | {"num_hidden_layers": 2, "attention_dropout": 0.1}, lora=lora)
    for index, parameter in enumerate(model.parameters()):
        torch.manual_seed(index)
        nn.init.normal_(parameter, std=0.2)
    for layer in without_adapters(model.backbone).model.layers:
        layer.mlp.register_forward_hook(lambda _, __, out: nn.functional.dropout(out, 0.2))
    for choice in (False, "pointwise", True):
        if choice:
            checkpoint_layers(without_adapters(model.backbone), pointwise=choice == "pointwise")
        model.zero_grad()
        torch.manual_seed(0)
        step(model, batch, mixed=mixed)
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in found[0].items():
        assert gradient.abs().sum() > 0
        assert torch.equal(found[1][name], gradient), name
        assert torch.equal(found[2][name], gradient), name


def test_products_and_attention_are_not_computed_again(monkeypatch: pytest.MonkeyPatch):
    """Of a layer's 7 products and its attention, forward: once with pointwise, twice with whole layers.

    The last product is never computed twice: what follows it needs no values to be differentiated.
    """
    monkeypatch.setattr("stepverify.models.recompute._SHORT", 16)
    batch, counts = pack(128, length=60, prompt=20), []
    for pointwise in (True, False):
        model = process_model(QWEN_7B | SMALL | {"num_hidden_layers": 2})
        checkpoint_layers(model.backbone, pointwise=pointwise)
        with Calls() as calls:
            step(model, batch, mixed=False)
        counts.append(calls)
    once, twice = counts
    assert (once.counts["attend_segments"], twice.counts["attend_segments"]) == (2, 4)
    products = [sum(calls.counts[name] for name in ("mm", "addmm")) for calls in (once, twice)]
    assert products[1] - products[0] == 2 * (7 - 1)
    assert once.counts["silu"] == twice.counts["silu"] == 4


class Calls(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func._opname] += 1
        return func(*args, **(kwargs or {}))


def test_fsdp2_computes_in_bfloat16_and_keeps_float32():
    """Under bf16-mixed: shards and averaged gradients in float32, a layer's inputs and outputs in bfloat16."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
        model = process_model(QWEN_7B | SMALL | {"num_hidden_layers": 2})
        shard(model, Sharding(mesh["data_parallel"], torch.device("cpu")), mixed=True)
        seen: list[torch.dtype] = []
        model.backbone.model.layers[1].register_forward_hook(
            lambda _, given, out: seen.extend((given[0].dtype, out.dtype))
        )
        step(model, pack(128, length=60, prompt=20), mixed=True)
        assert seen == [torch.bfloat16, torch.bfloat16]
        assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters()} == {torch.float32}
    finally:
        dist.destroy_process_group()


def by_layers(config: dict, num_tokens: int, **how: object) -> list[float]:
    """Parameters, kept after the forward pass, and peak of all layers from those of 2 and 3: each adds as much."""
    two, three = (peak(config | {"num_hidden_layers": n}, num_tokens, **how) for n in (2, 3))
    return [b + (config["num_hidden_layers"] - 3) * (b - a) for a, b in zip(two, three, strict=True)]


@pytest.mark.slow
def test_the_large_reward_model_fits_one_card_with_adapters():
    """31 GB of frozen parameters and 7 GB for a step of 8,192 tokens, 31 with pointwise operations recomputed alone.

    Without gradient checkpointing it would not fit.
    """
    parameters, _, step_bytes = by_layers(QWEN_7B, 8192, lora=True, checkpointing=True)
    adapters = parameters - 4 * PARAMETERS
    assert 0 < adapters < 0.2e9
    assert parameters + 2 * adapters + step_bytes == pytest.approx(38e9, rel=0.03)
    parameters, _, step_bytes = by_layers(QWEN_7B, 8192, lora=True, checkpointing="pointwise")
    assert parameters + 2 * adapters + step_bytes == pytest.approx(62e9, rel=0.03)
    parameters, _, step_bytes = by_layers(QWEN_7B, 8192, lora=True)
    assert parameters + step_bytes > CARD


@pytest.mark.slow
def test_the_large_reward_model_fits_eight_cards_whole():
    """16 bytes a parameter / 8; gathered layers, embeddings and head; and a step in bfloat16 without its gradients."""
    _, kept, _ = by_layers(QWEN_7B, 8192, mixed=False, dtype=torch.bfloat16, checkpointing=True)
    layer = peak(QWEN_7B | {"num_hidden_layers": 2}, 8192, mixed=False, dtype=torch.bfloat16, checkpointing=True)[2]
    embeddings = 2 * QWEN_7B["vocab_size"] * WIDTH
    gathered = 2 * 2 * (PARAMETERS - embeddings) / LAYERS + (2 + 6) * embeddings
    total = 16 * PARAMETERS / 8 + gathered + kept + layer
    assert total == pytest.approx(31e9, rel=0.05)
    assert total < 0.9 * CARD
    _, half, _ = by_layers(QWEN_7B, 8192, mixed=False, dtype=torch.bfloat16, checkpointing="pointwise")
    assert half == pytest.approx(LAYERS * 8192 * activations(WIDTH, MLP, KEYS, "bfloat16", pointwise=True), rel=0.03)
    assert total - kept + half == pytest.approx(56e9, rel=0.05)
    kept_whole = by_layers(QWEN_7B, 8192, mixed=False, dtype=torch.bfloat16)[1]
    assert kept_whole == pytest.approx(52e9, rel=0.02)
    assert kept_whole == pytest.approx(LAYERS * 8192 * activations(WIDTH, MLP, KEYS, "bfloat16"), rel=0.03)
