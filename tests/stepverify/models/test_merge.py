"""Adapters merged into every kind of layer: an export's values are those of the trained module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from stepverify.models import Backbone, LoRA, ProcessModel  # noqa: E402
from stepverify.models.adapters import merged  # noqa: E402
from stepverify.records import InputError  # noqa: E402
from tests.helpers.tiny import NEGATIVE, POSITIVE, model_folder  # noqa: E402

EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
KINDS: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 2},
    "qwen3_moe": {"num_experts": 4, **EXPERTS},
    "mixtral": {"num_local_experts": 4, **EXPERTS},
    "olmoe": {"num_experts": 4, **EXPERTS},
    "deepseek_v3": {
        "n_routed_experts": 4, **EXPERTS, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 8,
        "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "num_key_value_heads": 4, "head_dim": 4,
    },
}  # fmt: skip


def adapted(kind: str, folder: Path, tokenizer: Any, **lora: Any) -> torch.nn.Module:
    """A model with adapters that do something."""
    base = model_folder(kind, folder, tokenizer, **KINDS[kind])
    model = Backbone(path=str(base), lora=LoRA(rank=2, alpha=6, **lora)).load()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def gap(one: Any, other: Any) -> float:
    return (one - other).abs().max().item()


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow) if k in ("mixtral", "olmoe", "deepseek_v3") else k for k in KINDS]
)
def test_a_merged_export_says_what_the_trained_module_says(kind, tokenizer, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    backbone = adapted(kind, tmp_path / "base", tokenizer)
    model = ProcessModel(backbone, (NEGATIVE, POSITIVE)).eval()
    ids = torch.arange(30)[None] % 35
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.no_grad():
        trained = model.decode(input_ids=ids).logits
        with backbone.disable_adapter():
            assert gap(model.decode(input_ids=ids).logits, trained) > 0.1
        model.export(tmp_path / "merged", model.state_dict())
        model.export(tmp_path / "adapter", model.state_dict(), "adapter", base=str(tmp_path / "base"))
        assert gap(AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()(ids).logits, trained) < 1e-4
        assert gap(with_peft(tmp_path)(ids).logits, trained) < 1e-4
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def with_peft(folder: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "base"), folder / "adapter").eval()


def test_a_merge_by_hand(tokenizer, tmp_path: Path):
    """Of a transposed layer W + 3 · (B A)ᵀ; of expert e, whose columns of B stand r apart, W + 3 · B[:, e] A[e].

    The weights of ``state`` count, as those of the best checkpoint do, not the module's own.
    """
    for kind, layer, name in (
        ("gpt2", "transformer.h.0.attn.c_attn", "weight"),
        ("qwen3_moe", "model.layers.0.mlp.experts", "down_proj"),
    ):
        backbone = adapted(kind, tmp_path / kind, tokenizer)
        state = {k: v.clone() + 0.125 * (".lora_" in k) for k, v in backbone.state_dict().items()}
        stem = f"base_model.model.{layer}"
        wrapper = backbone.get_submodule(stem)
        if kind == "qwen3_moe" and wrapper.parameter_name != name:
            stem += ".base_layer"
        a, b = (state[f"{stem}.lora_{x}.default.weight"] for x in "AB")
        found = merged(backbone, state)[f"{layer}.{name}"]
        key = next(k for k in state if k.startswith(stem) and k.endswith(f"base_layer.{name}"))
        if kind == "gpt2":
            wanted = state[key] + 3 * (b @ a).T
        else:
            updates = [3 * b[:, e::4] @ a[2 * e : 2 * e + 2] for e in range(4)]
            wanted = state[key] + torch.stack(updates)
        assert gap(found, wanted) < 1e-5
        assert gap(found, state[key]) > 0.1


def test_the_log_says_where_experts_have_adapters(tokenizer, tmp_path: Path, caplog):
    """Beside DeepSeek's fused experts peft leaves out the layers of the same names: dense ones, and shared experts."""
    with caplog.at_level("INFO"):
        adapted("deepseek_v3", tmp_path / "base", tokenizer)
    said = "adapters on 2 fused weights, one for each of their experts; 6 linear layers have none (down_proj, gate_proj, up_proj)"
    assert said in caplog.text


def test_what_cannot_be_merged_is_refused_before_training(tokenizer, tmp_path: Path):
    for kind, lora, reason in (
        ("qwen2", {"targets": ["embed_tokens"]}, r"adapters of .*embed_tokens \(Embedding\) cannot be merged"),
        ("qwen2", {"targets": ["nothing"]}, "backbone.lora: Target modules"),
        ("qwen3_moe", {"dropout": 0.1}, "backbone.lora: lora.ParamWrapper does not work with lora_dropout"),
    ):
        with pytest.raises(InputError, match=reason):
            adapted(kind, tmp_path / kind, tokenizer, **lora)
    base = model_folder("qwen2", tmp_path / "tied", tokenizer, tie_word_embeddings=True)
    with pytest.raises(InputError, match="lm_head is tied to another layer's"):
        Backbone(path=str(base), lora=LoRA(targets=["q_proj", "lm_head"])).load()
