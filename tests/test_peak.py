"""The memory that overlays and the large recipe state, computed from the model's configuration."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from stepverify.memory import SavedBytes
from stepverify.models.parallel import shard
from stepverify.models.sharded import Sharding
from tests.peak import QWEN_7B, pack, peak, process_model, step

CARD = 80e9  # bytes
LAYERS, WIDTH, MLP, KEYS = 28, 3584, 18944, 4 * 128
PARAMETERS = 7_615_616_512  # of the published model
SMALL = {
    "hidden_size": 64, "intermediate_size": 320, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 4096,
}  # fmt: skip


def activations(hidden: int, mlp: int, keys: int, form: str) -> int:
    """Bytes that a token leaves in a layer, as the overlays say."""
    if form == "float32":
        return 16 * mlp + 32 * hidden + 8 * keys
    return 8 * mlp + (30 if form == "mixed" else 20) * hidden + 4 * keys


@pytest.mark.parametrize(("mixed", "dtype", "form"), [(False, torch.float32, "float32"), (True, torch.float32, "mixed"), (False, torch.bfloat16, "bfloat16")])  # fmt: skip
def test_activations_of_a_layer_are_those_of_the_formula(mixed: bool, dtype: torch.dtype, form: str):
    """What two layers more keep, without their parameters' copies of 2 bytes, on a model of another shape, for real.

    Beyond the formula each token keeps some scalars: two reciprocal deviations, and a logarithm for each head.
    """
    batch = pack(512, length=60, prompt=20)
    kept, copies = [], 0
    for layers in (1, 3):
        model = process_model(QWEN_7B | SMALL | {"num_hidden_layers": layers}, dtype=dtype)
        saved = SavedBytes()
        with saved:
            step(model, batch, mixed=mixed, stop_before_backward=True)
        copies = 2 * sum(p.numel() for p in model.backbone.model.layers[0].parameters() if p.ndim == 2)
        kept.append(saved.total)
    tokens = len(batch.input_ids)
    found = (kept[1] - kept[0]) / 2 - (copies if mixed else 0)
    assert found == pytest.approx(tokens * activations(64, 320, 32, form), rel=0.02)


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
    """31 GB of frozen parameters and 7 GB for a step of 8,192 tokens; without gradient checkpointing it would not fit."""
    parameters, _, step_bytes = by_layers(QWEN_7B, 8192, lora=True, checkpointing=True)
    adapters = parameters - 4 * PARAMETERS
    assert 0 < adapters < 0.2e9
    assert parameters + 2 * adapters + step_bytes == pytest.approx(38e9, rel=0.03)
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
    kept_whole = by_layers(QWEN_7B, 8192, mixed=False, dtype=torch.bfloat16)[1]
    assert kept_whole == pytest.approx(52e9, rel=0.02)
    assert kept_whole == pytest.approx(LAYERS * 8192 * activations(WIDTH, MLP, KEYS, "bfloat16"), rel=0.03)
