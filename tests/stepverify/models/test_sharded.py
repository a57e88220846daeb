"""Models of which no process holds all parameters: two processes on the CPU, with gloo."""

from __future__ import annotations

import faulthandler
import os
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing import spawn

from stepverify.models import Backbone, OutcomeModel, ProcessModel, VerifierModel
from stepverify.models.backbone import LoRA
from tests.helpers.processes import free_port

SMALL = {
    "vocab_size": 37, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
LLAMA = SMALL | {"intermediate_size": 33, "num_key_value_heads": 1}


def write(folder: Path, kind: str, dtype: torch.dtype = torch.float32, size: str = "50GB", **changes: Any) -> str:
    """Write an untrained model; biases and loss_denominators are random too, lest equal ones be taken for each other."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **changes), dtype=dtype)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder, max_shard_size=size)
    return str(folder)


def twice(folder: Path, *, equal: bool) -> str:
    """Write a model that is tied by its configuration, with an output matrix in its file all the same."""
    from safetensors.torch import load_file, save_file

    write(folder, "llama", **LLAMA, tie_word_embeddings=True)
    stored = load_file(folder / "model.safetensors")
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"].clone() + (not equal)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def cases(root: Path) -> dict[str, Backbone]:
    """Write the models; rows and experts do not divide by two."""
    experts = {"moe_intermediate_size": 8, "num_experts": 3, "num_experts_per_tok": 2, "head_dim": 8}
    tied = write(root / "tied", "qwen2", torch.bfloat16, "2KB", **LLAMA, tie_word_embeddings=True)
    assert len(list((root / "tied").glob("*.safetensors"))) > 3
    moe = write(root / "moe", "qwen3_moe", **LLAMA, **experts)
    classifier = root / "classifier"
    reward = ProcessModel(Backbone(path=tied).load(), (8, 9))
    reward.export(classifier, reward.state_dict(), "classifier")
    return {
        "tied": Backbone(path=tied), "half": Backbone(path=tied, dtype="auto"),
        "missing": Backbone(path=tied, overrides={"tie_word_embeddings": False}),
        "moe": Backbone(path=moe), "adapters": Backbone(path=moe, dtype="auto", lora=LoRA(rank=2)),
        "convolutions": Backbone(path=write(root / "gpt2", "gpt2", **SMALL, n_positions=64)),
        "equal": Backbone(path=twice(root / "equal", equal=True)),
        "different": Backbone(path=twice(root / "different", equal=False)),
        "classifier": Backbone(path=str(classifier)), "random": Backbone(path=tied, weights="random", dropout=0.1),
    }  # fmt: skip


class Alive:
    """Counts bytes of tensors that are read from files and parameters that are whole, as long as anything holds them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        from stepverify.models import files
        from stepverify.models.sharded import Sharding

        self.tensors: weakref.WeakSet[Tensor] = weakref.WeakSet()
        self.most = 0
        read, keep = files._Stored.__getitem__, Sharding.keep
        patch.setattr(files._Stored, "__getitem__", lambda stored, index: self.see(read(stored, index)))
        patch.setattr(Sharding, "keep", lambda sharding, whole: keep(sharding, self.see(whole)))

    def see(self, tensor: Tensor) -> Tensor:
        if not any(t is tensor for t in self.tensors):
            self.tensors.add(tensor)
        self.most = max(self.most, sum(t.nbytes for t in self.tensors))
        return tensor


def read(backbone: Backbone, sharding: Any = None) -> VerifierModel:
    """Load a model and its head, after the same random state."""
    torch.manual_seed(3)
    loaded = backbone.load(sharding)
    if hasattr(loaded, "score"):
        return ProcessModel(loaded, (8, 9))
    model = OutcomeModel(loaded, 4)
    model.start_undecided([1, 2, 3, 5, 7])
    return model


def compare(rank: int, port: int, backbones: dict[str, Backbone], folder: str) -> None:
    """Load each model whole and divided, on each process; then export it."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(200, exit=True)  # processes that wait for each other would do so for ever
    torch.distributed.init_process_group("gloo")
    from torch.distributed.device_mesh import init_device_mesh

    from stepverify.models.parallel import shard
    from stepverify.models.sharded import Sharding
    from stepverify.models.weights import Gathered

    sharding = Sharding(init_device_mesh("cpu", (2,), mesh_dim_names=("data_parallel",)), torch.device("cpu"))
    for name, backbone in backbones.items():
        one, random = read(backbone), torch.get_rng_state()
        whole = one.state_dict()
        with pytest.MonkeyPatch.context() as patch:
            alive = Alive(patch)
            other = read(backbone, sharding)
        assert torch.equal(random, torch.get_rng_state()), name
        assert other.reading == one.reading, name
        sizes = sorted(p.nbytes for p in one.parameters())
        if name not in ("random", "adapters", "moe"):
            # A tensor in its file's format and in the model's, and the one before that has not been let go yet.
            assert 0 < alive.most <= 1.5 * sizes[-1] + sizes[-2], name
        trained = [p.requires_grad for p in one.parameters()]
        assert [p.requires_grad for p in other.parameters()] == trained, name
        shard(other, sharding)
        held = sum(p.to_local().nbytes for p in other.parameters())
        assert held <= sum(sizes) / 2 + sum(p[:1].nbytes for p in one.parameters()), name
        divided = other.state_dict()
        assert divided.keys() == whole.keys(), name
        for key, wanted in whole.items():
            found = divided[key].full_tensor() if hasattr(divided[key], "full_tensor") else divided[key]
            assert found.dtype == wanted.dtype, f"{name}: {key}"
            assert torch.equal(found, wanted), f"{name}: {key}"
        gathered = Gathered(other)
        if rank:
            gathered.serve()
        else:
            other.export(Path(folder) / name / "divided", gathered, max_shard_size="2KB")
            gathered.close()
            one.export(Path(folder) / name / "whole", whole, max_shard_size="2KB")
    rows_one_at_a_time(rank, sharding)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def rows_one_at_a_time(rank: int, sharding: Any) -> None:
    """Compare gradients where the processes need 3 forward passes and 1: longer rows than 10 tokens are read alone."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from stepverify.data.batch import collate
    from stepverify.data.encode import Example
    from stepverify.models import GeneratorModel
    from stepverify.models.parallel import shard
    from stepverify.records import Solution

    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    config = AutoConfig.for_model("llama", **LLAMA, max_position_embeddings=10, rope_parameters=rope)
    record = Solution(id="p#0", problem_id="p", problem="p", steps=["1"])
    batches = [
        collate([Example([*range(3, 3 + n)], [1, n - 2], [4, 5], record) for n in lengths], shared=max(lengths) <= 10)
        for lengths in ((14, 12, 7), (6, 8))
    ]
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(GeneratorModel(AutoModelForCausalLM.from_config(config)))
    one, other = models
    assert one.reading.row_limit == 10
    shard(other, sharding)
    sum(one(batch)[0].sum() for batch in batches).backward()
    other(batches[rank])[0].sum().backward()
    gradients = {name: p.grad for name, p in one.named_parameters()}
    for name, parameter in other.named_parameters():
        found = 2 * parameter.grad.full_tensor()  # FSDP2 takes the mean of the processes
        torch.testing.assert_close(found, gradients[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow  # a minute
def test_each_process_holds_its_rows_alone(tmp_path: Path):
    """Parameters, adapters, heads, random state, what the check finds, and exports are those of whole models, bit for bit.

    Tied matrices, in several files, cast or not; an output matrix that the checkpoint lacks, and one that it has twice;
    fused experts; transposed layers; a classifier; random weights.
    """
    backbones = cases(tmp_path)
    spawn(compare, (free_port(), backbones, str(tmp_path / "exports")), nprocs=2)
    for name in backbones:
        one, other = (tmp_path / "exports" / name / kind for kind in ("whole", "divided"))
        names = sorted(p.name for p in one.iterdir())
        assert names == sorted(p.name for p in other.iterdir())
        assert all((one / n).read_bytes() == (other / n).read_bytes() for n in names), name
