"""Adapters: what is trained, and what is not computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from stepverify.models import Backbone, LoRA, ProcessModel  # noqa: E402
from stepverify.models.rows import decoder_layers  # noqa: E402
from tests.helpers.tiny import NEGATIVE, POSITIVE, model_folder  # noqa: E402

UPPER = r".*layers\.1\..*_proj"  # the second of two layers


def test_layers_below_the_lowest_adapter_have_no_backward_pass(tokenizer, tmp_path: Path):
    """Their outputs need no gradient, with recomputed layers neither; the adapters above have the same gradients."""
    base = str(model_folder("qwen2", tmp_path / "base", tokenizer))
    found: list[dict[str, Any]] = []
    for recomputed in (False, True):
        source = Backbone(path=base, lora=LoRA(rank=2, targets=UPPER), gradient_checkpointing=recomputed)
        torch.manual_seed(1)
        model = ProcessModel(source.load(), (NEGATIVE, POSITIVE))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        model.backbone.get_base_model().set_attn_implementation("sdpa")
        needed: list[bool] = []
        for layer in decoder_layers(model.backbone.get_base_model()):
            layer.register_forward_hook(lambda _, __, output, needed=needed: needed.append(output.requires_grad))
        model.decode(input_ids=torch.arange(30)[None] % 35).logits.square().mean().backward()
        assert needed[:2] == [False, True]
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    plain, again = found
    assert {name.split(".layers.")[1][0] for name in plain} == {"1"}
    assert all(grad.abs().max() > 0 for name, grad in plain.items() if "lora_A" in name)
    assert all(torch.allclose(plain[name], again[name]) for name in plain)
