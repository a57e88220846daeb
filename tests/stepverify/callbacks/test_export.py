"""The forms of an export: the same scores in plain transformers, or a reason why there is none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from stepverify.callbacks import HuggingFaceExport  # noqa: E402
from stepverify.models import Backbone, LoRA, OutcomeModel, ProcessModel  # noqa: E402
from stepverify.modules import OutcomeVerifier, ProcessRewardModel  # noqa: E402
from stepverify.readers import Synthetic  # noqa: E402
from stepverify.records import InputError  # noqa: E402
from stepverify.template import Template  # noqa: E402
from stepverify.verifier import Verifier  # noqa: E402
from tests.helpers.tiny import NEGATIVE, POSITIVE, TAG, model_folder  # noqa: E402

TEMPLATE = Template(prompt="{problem}\n")


@pytest.mark.parametrize(
    ("kind", "tied"), [("qwen2", True), ("qwen2", False), ("llama", False), ("gemma", True), ("mistral", False)]
)
def test_the_classifier_says_what_the_causal_form_says(kind, tied, tokenizer, tmp_path: Path):
    """The two logits at every position, in plain transformers, and the scores that we read."""
    from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

    base = model_folder(kind, tmp_path / "base", tokenizer, tie_word_embeddings=tied)
    model = ProcessModel(Backbone(path=str(base)).load(), (NEGATIVE, POSITIVE))
    for form in ("causal", "classifier"):
        model.export(tmp_path / form, model.state_dict(), form)
        tokenizer.save_pretrained(tmp_path / form)
        ids = {"step_tag": TAG, "negative": NEGATIVE, "positive": POSITIVE}
        TEMPLATE.save(tmp_path / form, objective="process", form=form, max_length=128, ids=ids)
    causal = AutoModelForCausalLM.from_pretrained(tmp_path / "causal").eval()
    plain, report = AutoModelForTokenClassification.from_pretrained(tmp_path / "classifier", output_loading_info=True)
    assert not any(report[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert plain.config.id2label == {0: "incorrect", 1: "correct"}
    assert plain.config.label2id == {"incorrect": 0, "correct": 1}
    assert plain.config.architectures == [type(plain).__name__]
    assert torch.equal(plain.score.bias, torch.zeros(2))
    assert torch.equal(plain.score.weight, causal.get_output_embeddings().weight[[NEGATIVE, POSITIVE]])
    given = torch.randint(5, 35, (2, 30))
    with torch.inference_mode():
        wanted, found = causal(given).logits[..., [NEGATIVE, POSITIVE]], plain.eval()(given).logits
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    records = list(Synthetic("train", 6).solutions())
    causal, classifier = (Verifier.from_pretrained(tmp_path / form, device="cpu") for form in ("causal", "classifier"))
    scores = [verifier.score_solutions(records) for verifier in (causal, classifier)]
    for one, two in zip(*scores, strict=True):
        assert one == pytest.approx(two, abs=2e-6)
    assert len({value for values in scores[0] for value in values}) > 6


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("gemma2", {"final_logit_softcapping": 30.0}, "its logits are bounded (final_logit_softcapping: 30.0)"),
        ("gemma3_text", {}, "gemma3_text: transformers has no token classifier"),
        ("gpt2", {"n_embd": 32, "n_head": 4, "n_layer": 2}, "gpt2: transformers has no token classifier with a linear head"),
    ],
)  # fmt: skip
def test_what_no_classifier_can_say_is_not_written(kind, changes, reason, tokenizer, tmp_path: Path, caplog):
    """A process reward model goes without that form and says why; an outcome verifier is a causal model and its head."""
    base = model_folder(kind, tmp_path / "base", tokenizer, **changes)
    backbone = Backbone(path=str(base))
    callback, trainer = HuggingFaceExport(str(tmp_path / "export")), SimpleNamespace(fast_dev_run=False)
    module = ProcessRewardModel(backbone, TEMPLATE)
    module.model = module.build()
    with caplog.at_level("INFO"):
        callback.on_fit_start(trainer, module)
    assert callback._forms == {"causal": "."}
    assert reason in caplog.text
    outcome = OutcomeVerifier(backbone, TEMPLATE)
    outcome.model = outcome.build()
    callback.on_fit_start(trainer, outcome)
    # Gemma 2's value head is a linear layer of its own, not bounded.
    assert callback._forms == {"classifier" if kind == "gemma2" else "value_head": "."}


def test_a_backbone_that_is_a_classifier_keeps_its_head(tokenizer, tmp_path: Path):
    """Read as a causal model it would start with another head: a verifier that goes on from it takes it over."""
    base = model_folder("llama", tmp_path / "base", tokenizer)
    model = OutcomeModel(Backbone(path=str(base)).load())
    torch.nn.init.normal_(model.value_head.weight)
    model.export(tmp_path / "orm", model.state_dict())
    again = OutcomeModel(Backbone(path=str(tmp_path / "orm")).load())
    assert torch.equal(again.value_head.weight, model.value_head.weight)
    again.export(tmp_path / "again", again.state_dict())
    with pytest.raises(InputError, match="a token classifier of 1 labels is no process reward model"):
        ProcessModel(Backbone(path=str(tmp_path / "orm")).load(), (NEGATIVE, POSITIVE))
    with pytest.raises(InputError, match="does not support adapters"):
        Backbone(path=str(tmp_path / "orm"), lora=LoRA()).load()
    with pytest.raises(InputError, match="without a vocabulary head"):
        again.output_matrix()
