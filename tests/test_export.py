"""The two forms of an exported process reward model: the same scores, in plain transformers too."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402

from sampling.scorer import ExportedVerifier  # noqa: E402
from stepverify.data.batch import collate  # noqa: E402
from stepverify.data.encode import SolutionEncoder, load_tokenizer  # noqa: E402
from stepverify.layout import Layout  # noqa: E402
from stepverify.models import LoRA, ProcessModel, load_verifier  # noqa: E402
from stepverify.models.backbone import _with_adapters  # noqa: E402
from stepverify.readers import Synthetic  # noqa: E402

BASE = "lit_configs/quickstart/base"
LAYOUT = Layout(prompt="{problem}\n")
SOLUTIONS = list(Synthetic("train", 4).solutions())
SIZES = {
    "vocab_size": 35, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3,
}  # fmt: skip


@pytest.fixture
def encoder() -> SolutionEncoder:
    return SolutionEncoder(load_tokenizer(BASE), LAYOUT, max_length=128)


def export(folder: Path, encoder: SolutionEncoder, architecture: str, *, lora: bool = False, **extra) -> ProcessModel:
    from stepverify.models.attention import register
    from stepverify.modules import ProcessRewardModel

    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**SIZES | extra)
    backbone = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=register("auto"))
    model = ProcessModel(_with_adapters(backbone, LoRA(rank=2)) if lora else backbone, encoder.label_ids)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    module = ProcessRewardModel.__new__(ProcessRewardModel)
    module.__dict__.update(_modules={"model": model}, encoder=encoder, layout=LAYOUT)
    model.export(folder, model.state_dict())
    module.describe(folder)
    return model.eval()


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(
    ("architecture", "extra"),
    [("Qwen2", {"tie_word_embeddings": True}), ("Llama", {"tie_word_embeddings": False})],
)
def test_both_forms_give_the_trained_models_scores(architecture, extra, lora, encoder, tmp_path):
    """Values of the module, of both exports by ``sampling score``'s code, and of plain transformers: within 1e-5."""
    model = export(tmp_path / "prm", encoder, architecture, lora=lora, **extra)
    examples = [encoder.process(s, None) for s in SOLUTIONS]
    batch = collate(examples)
    with torch.inference_mode():
        expected = batch.split(model.score(batch))
    for path in (tmp_path / "prm", tmp_path / "prm" / "classifier"):
        for values, found in zip(expected, ExportedVerifier(str(path), device="cpu").score(SOLUTIONS), strict=True):
            assert found == pytest.approx(values, abs=1e-5)
    plain = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "prm" / "classifier").eval()
    assert plain.config.id2label == {0: "wrong", 1: "right"}
    for values, example in zip(expected, examples, strict=True):
        with torch.inference_mode():
            chances = plain(torch.tensor([example.input_ids])).logits.softmax(-1)[0, example.positions, 1]
        assert chances.tolist() == pytest.approx(values, abs=1e-5)


def test_the_classifier_says_what_it_is(encoder, tmp_path):
    export(tmp_path / "prm", encoder, "Qwen2")
    facts = [load_verifier(str(tmp_path / name))[2] for name in ("prm", "prm/classifier")]
    assert facts[1] == facts[0] | {"form": "classifier"}


@pytest.mark.parametrize("architecture", ["Gemma2", "Gemma3Text"])
def test_some_architectures_have_the_causal_form_alone(architecture, encoder, tmp_path):
    """Gemma 2's bound lies behind the head, where a token classifier has nothing; Gemma 3 has no token classifier."""
    model = export(tmp_path / "prm", encoder, architecture, query_pre_attn_scalar=8)
    assert not (tmp_path / "prm" / "classifier").exists()
    batch = collate([encoder.process(s, None) for s in SOLUTIONS])
    with torch.inference_mode():
        expected = batch.split(model.score(batch))
    for values, found in zip(
        expected, ExportedVerifier(str(tmp_path / "prm"), device="cpu").score(SOLUTIONS), strict=True
    ):
        assert found == pytest.approx(values, abs=1e-5)
