"""What the exports of modules hold, and which of them are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stepverify.data.batch import collate
from stepverify.data.encode import SolutionEncoder, load_tokenizer
from stepverify.models import LoRA, OutcomeModel, ProcessModel, load_verifier
from stepverify.readers import Synthetic
from stepverify.records import InputError, Solution
from stepverify.template import load_export
from tests.helpers.modules import BASE, TEMPLATE, backbone


@pytest.fixture
def encoder() -> SolutionEncoder:
    return SolutionEncoder(load_tokenizer(BASE), TEMPLATE, max_length=128)


@pytest.fixture
def solutions() -> list[Solution]:
    return list(Synthetic("train", 4, num_steps=4).solutions())


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)])
@pytest.mark.parametrize("kind", ["process", "outcome"])
def test_export_reloads_to_identical_scores(kind, lora, encoder, solutions, tmp_path: Path):
    """Values after export and reload equal those before; adapters are merged to 1e-6."""
    model = (
        ProcessModel(backbone(lora=lora), encoder.label_ids) if kind == "process" else OutcomeModel(backbone(lora=lora))
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "value_head" in name:
                parameter.normal_(std=0.1)
    ids = {"step_tag": encoder.step_tag_id, "negative": encoder.label_ids[0], "positive": encoder.label_ids[1]}
    model.export(tmp_path, model.state_dict())
    encoder.tokenizer.save_pretrained(tmp_path)
    TEMPLATE.save(tmp_path, objective=kind, max_length=128, **({"ids": ids} if kind == "process" else {}))
    encode = encoder.process if kind == "process" else encoder.outcome
    batch = collate([encode(s, None) for s in solutions])
    loaded, reader, facts = load_verifier(str(tmp_path))
    with torch.inference_mode():
        before, after = model.eval().score(batch), loaded.score(batch)
    if lora is None:
        assert torch.equal(before, after)
    else:
        torch.testing.assert_close(before, after, atol=1e-6, rtol=1e-5)
    assert reader.template == TEMPLATE
    assert facts["objective"] == kind


def test_outcome_export_is_a_plain_token_classifier(encoder, solutions, tmp_path: Path):
    """A user without this package gets the same logits: value = sigmoid(logit of the one label)."""
    from transformers import AutoModelForTokenClassification

    model = OutcomeModel(backbone())
    torch.nn.init.normal_(model.value_head.weight)
    model.export(tmp_path, model.state_dict())
    plain = AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    example = encoder.outcome(solutions[0], None)
    with torch.inference_mode():
        logits = plain(torch.tensor([example.input_ids])).logits[0, example.positions, 0]
        ours = model.eval().score(collate([example]))
    torch.testing.assert_close(logits.sigmoid(), ours, atol=1e-6, rtol=1e-5)


def test_process_values_are_the_causal_models_own(encoder, solutions, tmp_path: Path):
    """P(+) over {+, -} at the tag, from the full logits of the exported causal model in plain transformers."""
    from transformers import AutoModelForCausalLM

    model = ProcessModel(backbone(), encoder.label_ids)
    model.export(tmp_path, model.state_dict())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    example = encoder.process(solutions[0], None)
    with torch.inference_mode():
        logits = plain(torch.tensor([example.input_ids])).logits[0, example.positions]
        ours = model.eval().score(collate([example]))
    torch.testing.assert_close(logits[:, list(encoder.label_ids)].softmax(-1)[:, 1], ours, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)])
def test_a_reserved_logit_starts_undecided_and_exports_as_a_linear_head(lora, encoder, solutions, tmp_path: Path):
    """Mean 0 and variance 1 along the probe; gain · logit + bias by hand; the export's own linear head says the same.

    So it does of values that are scaled: sigmoid(2 · logit - 1).
    """
    model = OutcomeModel(backbone(lora=lora), encoder.step_tag_id).eval()
    model.start_undecided(ids := encoder.probe())
    with torch.no_grad():
        hidden = model.decode(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, 1:]
        start = model.value_head(hidden, model.head_rows()[0])
    torch.testing.assert_close(torch.stack(torch.std_mean(start)), torch.tensor([1.0, 0.0]), rtol=1e-4, atol=1e-5)
    batch = collate([encoder.outcome(s, None) for s in solutions])
    assert 0.3 < model.score(batch).mean() < 0.7
    with torch.no_grad():
        model.value_head.gain.fill_(1.5)
        logits = model.states(batch)[batch.scored.index] @ model.output_matrix()[0][encoder.step_tag_id]
        torch.testing.assert_close(model(batch)[0], 1.5 * logits + model.value_head.bias)
        model.scale(2.0, -1.0)
        torch.testing.assert_close(model.score(batch), (2.0 * model(batch)[0] - 1.0).sigmoid())
        model.export(tmp_path, model.state_dict())
        encoder.tokenizer.save_pretrained(tmp_path)
        TEMPLATE.save(tmp_path, objective="outcome", probe=encoder.probe())
        again, _, _ = load_verifier(str(tmp_path))
        torch.testing.assert_close(again.score(batch), model.score(batch), rtol=1e-4, atol=1e-5)


def test_an_export_with_another_tokenizer_is_refused(encoder, tmp_path: Path):
    encoder.tokenizer.save_pretrained(tmp_path)
    TEMPLATE.save(tmp_path, objective="outcome", probe=[1, 2, 3])
    with pytest.raises(InputError, match="its tokenizer gives other ids than in training"):
        load_verifier(str(tmp_path))


@pytest.mark.parametrize("path", ["generator", "nothing"])
def test_not_a_verifier(path: str, tmp_path: Path):
    folder = tmp_path / path
    folder.mkdir()
    if path == "generator":
        TEMPLATE.save(folder, objective="generator")
    with pytest.raises(InputError, match="not an exported verifier"):
        load_verifier(str(folder))


def test_label_ids_outside_the_model():
    with pytest.raises(InputError, match="outside the model's"):
        ProcessModel(backbone(), (1, 10_000))


def test_layout_travels_with_the_export(tmp_path: Path):
    TEMPLATE.save(tmp_path, objective="generator", max_length=7)
    assert load_export(tmp_path) == (TEMPLATE, {"objective": "generator", "max_length": 7})
