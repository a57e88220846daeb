"""Sharding of parameters over devices with FSDP2."""

from __future__ import annotations

from stepverify.models.backbone import without_adapters
from stepverify.models.heads import ReadModel
from stepverify.models.rows import decoder_layers
from stepverify.models.sharded import Sharding


def shard(model: ReadModel, sharding: Sharding) -> None:
    """Shard each decoder layer, then the rest, with FSDP2.

    The head is applied inside the model's own forward, so the embeddings, which FSDP2 gathers for the
    root module, are whole whenever their rows are read.

    Args:
        model: with parameters that are divided already, or whole and the same on every rank.
        sharding: over the data-parallel dimension of Lightning's device mesh.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    def divide() -> None:
        for layer in decoder_layers(without_adapters(model.backbone)):
            fully_shard(layer, mesh=sharding.mesh)
        fully_shard(model, mesh=sharding.mesh)

    sharding.place(model, divide)
    register_fsdp_forward_method(model, "decode")
    model.most_passes = sharding.largest
