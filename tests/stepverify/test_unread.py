"""What no loss reads is frozen, and each rank has every gradient."""

from __future__ import annotations

import pytest
from torch import nn

from stepverify.data.batch import collate
from stepverify.data.encode import SolutionEncoder
from stepverify.models import Backbone, GeneratorModel, OutcomeModel, ProcessModel
from stepverify.models.backbone import LoRA
from stepverify.template import Template
from tests.helpers.devices import UNTIED
from tests.helpers.fits import thirteen


@pytest.mark.parametrize(
    ("head", "lm", "frozen"),
    [
        ("linear", False, {"lm_head": 70 * 32}), ("linear", True, {}), ("reserved", False, {}), ("labels", False, {}),
        ("classifier", False, {}), ("tied", False, {}), ("adapters", False, {}),
    ],
)  # fmt: skip
def test_what_no_loss_reads_is_frozen(head: str, lm: bool, frozen: dict[str, int]):
    """An output matrix of its own under a linear value head, unless lm is learned too; each other head is a part of it."""
    path = {"path": UNTIED["path"], "weights": "random", "overrides": {"tie_word_embeddings": head == "tied"}}
    backbone = Backbone(**path, lora=LoRA(rank=2) if head == "adapters" else None).load()
    if head == "labels":
        model = ProcessModel(backbone, (8, 9))
    elif head == "classifier":
        backbone.score = nn.Linear(32, 2)
        model = ProcessModel(backbone, (8, 9))
    else:
        model = OutcomeModel(backbone, 4 if head == "reserved" else None)
    before = {name for name, p in model.named_parameters() if p.requires_grad}
    assert model.freeze_unread(lm=lm) == (frozen if head != "classifier" else {"lm_head": 70 * 32})
    after = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(before - after) == (head in ("linear", "classifier") and not lm)


def test_a_batch_without_language_reaches_the_output_matrix(tokenizer):
    """Its gradient is 0 and not missing, on every rank alike; the outputs are those without a language-model loss."""
    model = OutcomeModel(Backbone(**UNTIED).load())
    nn.init.ones_(model.value_head.weight)
    examples = [
        SolutionEncoder(tokenizer, Template(), 100).outcome(s, [1.0] * len(s.steps)) for s in thirteen(lambda i: {})[:2]
    ]
    outputs, nll = model(collate(examples, lm=True))
    assert nll.shape == (0,)
    assert outputs.equal(model(collate(examples))[0])
    (outputs.sum() + nll.sum()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert not [name for name, gradient in gradients.items() if gradient is None]
    assert not gradients["backbone.lm_head.weight"].any()
    assert gradients["backbone.model.embed_tokens.weight"].any()


def test_a_multimodal_wrapper_is_frozen_around_its_decoder():
    from transformers import AutoModelForCausalLM, Gemma3Config

    text = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    backbone = AutoModelForCausalLM.from_config(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    )
    parts = {
        "model.vision_tower": backbone.model.vision_tower,
        "model.multi_modal_projector": backbone.model.multi_modal_projector,
    }
    frozen = GeneratorModel(backbone).freeze_unread(lm=False)
    assert frozen == {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert all(p.requires_grad for p in backbone.get_decoder().parameters())
