"""Sharding of parameters over devices with FSDP2."""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh

from stepverify.models.backbone import without_adapters
from stepverify.models.heads import ReadModel
from stepverify.models.rows import decoder_layers


def shard(model: ReadModel, mesh: DeviceMesh) -> None:
    """Shard each decoder layer, then the rest, over the data-parallel dimension of ``mesh``.

    The head is applied inside the model's own forward, so the embeddings, which FSDP2 gathers for the
    root module, are whole whenever their rows are read.

    Args:
        model: with weights loaded, the same on every rank.
        mesh: Lightning's device mesh, with a dimension ``data_parallel``.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    data = mesh["data_parallel"]
    for layer in decoder_layers(without_adapters(model.backbone)):
        fully_shard(layer, mesh=data)
    fully_shard(model, mesh=data)
    register_fsdp_forward_method(model, "decode")
