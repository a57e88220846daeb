"""Shard parameters over devices with FSDP2."""

from __future__ import annotations

import torch

from stepverify.models.backbone import without_adapters
from stepverify.models.heads import VerifierModel
from stepverify.models.rows import decoder_layers
from stepverify.models.sharded import Sharding


def shard(model: VerifierModel, sharding: Sharding, *, mixed: bool = False) -> None:
    """Shard each decoder layer, then the rest, with FSDP2.

    The head is applied inside the model's own forward, so the embeddings, which FSDP2 gathers for the root module, are
    whole whenever their rows are used.

    Args:
        model: with parameters already sharded, or whole and equal on every rank.
        sharding: over the data-parallel dimension of Lightning's device mesh.
        mixed: gather parameters and compute in bfloat16; shards, gradients and their averages stay in float32. Autocast
            alone would gather float32, and its casts of all layers would outlive the layers' forward passes.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if mixed else MixedPrecisionPolicy()

    def divide() -> None:
        for layer in decoder_layers(without_adapters(model.backbone)):
            fully_shard(layer, mesh=sharding.mesh, mp_policy=policy)
        fully_shard(model, mesh=sharding.mesh, mp_policy=policy)

    sharding.place(model, divide)
    model.gathered_dtype = policy.param_dtype
    for name in ("decode", "log_probs"):
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)
    model.most_passes = sharding.largest
