"""Sharding of parameters over devices with FSDP2."""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import DeviceMesh

from stepverify.models.backbone import without_adapters
from stepverify.models.heads import ReadModel
from stepverify.models.rows import decoder_layers


def shard(model: ReadModel, mesh: DeviceMesh, *, mixed: bool = False) -> None:
    """Shard each decoder layer, then the rest, over the data-parallel dimension of ``mesh``.

    The head is applied inside the model's own forward, so the embeddings, which FSDP2 gathers for the
    root module, are whole whenever their rows are read.

    Args:
        model: with weights loaded, the same on every rank.
        mesh: Lightning's device mesh, with a dimension ``data_parallel``.
        mixed: gather parameters and compute in bfloat16; shards, gradients and their averages stay in float32.
            Autocast alone would gather float32, and its casts of all layers would outlive the layers' own forward pass.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    data = mesh["data_parallel"]
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if mixed else MixedPrecisionPolicy()
    for layer in decoder_layers(without_adapters(model.backbone)):
        fully_shard(layer, mesh=data, mp_policy=policy)
    fully_shard(model, mesh=data, mp_policy=policy)
    register_fsdp_forward_method(model, "decode")
