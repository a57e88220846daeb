"""Fits of an implicit reward model: from the command line to the export, on any number of devices."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import lightning  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from stepverify.cli import main  # noqa: E402
from stepverify.data.datamodule import SolutionData  # noqa: E402
from stepverify.jsonl import read_records, write_records  # noqa: E402
from stepverify.models import Backbone, ImplicitModel, LoRA  # noqa: E402
from stepverify.modules import ImplicitRewardModel  # noqa: E402
from stepverify.readers import Solutions  # noqa: E402
from stepverify.records import InputError, Solution  # noqa: E402
from stepverify.template import Template, load_export  # noqa: E402
from stepverify.verifier import Verifier  # noqa: E402
from tests.helpers.cards import run_card  # noqa: E402
from tests.helpers.devices import reader  # noqa: E402
from tests.helpers.implicit import (  # noqa: E402
    ONE_STEP,
    PARTS,
    implicit,
    log_probs,
    other_weights,
    pairs,
    rewards_by_hand,
    write_pairs,
)
from tests.helpers.runs import scalars, weights  # noqa: E402

ASKED = Solution(id="p#0", problem_id="p", problem="What is 2 + 3?", steps=["2 + 3 = 5", "#### 5"])


@pytest.fixture(scope="module")
def graded(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("graded"))


@pytest.mark.parametrize(("loss", "lora"), [("ce", False), pytest.param("dpo", True, marks=pytest.mark.slow)])
def test_a_fit_ends_in_an_export_that_needs_its_reference(
    loss, lora, graded, one_layer_dir, tmp_path, caplog, monkeypatch, capsys
):
    """The loss begins at ln 2 and falls; metrics are those of an outcome verifier; scores are those of plain transformers.

    The reference costs no second model; a second run finds its log-probabilities.
    """
    monkeypatch.setattr(ImplicitRewardModel, "_load_reference", None)  # never called
    backbone = {"path": str(one_layer_dir)} | ({"lora": {"rank": 2, "alpha": 8}} if lora else {})
    exporting = {"class_path": "HuggingFaceExport", "init_args": {"adapter": lora}}
    changes = {
        "loss": loss, "beta": 1.0, "model__init_args__backbone": backbone, "trainer__max_epochs": 6, "trainer__callbacks": [exporting],
        "trainer__check_val_every_n_epoch": 6,
    }  # fmt: skip
    with caplog.at_level("INFO"):
        main(["fit", "--config", implicit(tmp_path / "run", graded, one_layer_dir, **changes)])
    kept = "16 solutions have log-probabilities under the reference"
    # Validation reads the same solutions.
    assert [caplog.text.count(f"{name}: {kept}") for name in ("fit", "validate")] == [1, 1]
    assert caplog.text.count("; kept in") - caplog.text.count("tokens; kept in") == 1
    seen = scalars(tmp_path / "run")
    losses = [value for _, value in seen["train/loss"]]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert losses[-1] < 0.65
    assert {"val/solution_auroc", "val/solution_auroc_per_problem", "val/solution_accuracy", "val/ece", "val/loss",
            "val/ece_calibrated", "calibration"} <= seen.keys()  # fmt: skip
    folder = tmp_path / "run" / "export"
    facts = load_export(folder)[1]
    assert (facts["objective"], facts["form"], facts["beta"]) == ("implicit", "causal", 1.0)
    assert facts["reference"]["path"] == str(one_layer_dir)
    assert facts["scaling"] != [1.0, 0.0]
    verifier = Verifier.from_pretrained(folder, device="cpu")
    (found,) = verifier.score_solutions([ASKED])
    rewards = torch.tensor(rewards_by_hand(folder, one_layer_dir, ASKED, 1.0, ASKED.problem + "\n")).cumsum(0)
    gain, bias = facts["scaling"]
    assert found == pytest.approx((gain * rewards + bias).sigmoid().tolist(), abs=2e-5)
    for place in (".", "adapter") if lora else (".",):
        assert run_card(folder / place, monkeypatch)["scores"] == pytest.approx(found, abs=1e-4), place
    caplog.clear()
    with caplog.at_level("INFO"):
        main(["fit", "--config", implicit(tmp_path / "again", graded, one_layer_dir, **changes)])
    assert caplog.text.count("; read from") == 4
    assert "kept in" not in caplog.text
    again = weights(tmp_path / "again")
    assert all(torch.equal(again[name], value) for name, value in weights(tmp_path / "run").items())


@pytest.mark.slow
def test_predict_and_test_read_an_export_with_its_own_reference(graded, one_layer_dir, tmp_path, capsys):
    """From the export: values of ``predict`` are those of the verifier, a second fit begins where the first ended.

    With the export as its own reference every reward would be 0.
    """
    main(["fit", "--config", implicit(tmp_path / "run", graded, one_layer_dir, beta=1.0, trainer__max_epochs=3)])
    export = tmp_path / "run" / "export"
    writer = {"class_path": "ScoreWriter", "init_args": {"folder": str(tmp_path / "scores"), "name": "implicit"}}
    given = {"trainer__callbacks": [writer], "data__predict": reader(graded), "data__test": reader(graded)}
    file = implicit(tmp_path / "read", graded, export, **given)
    main(["predict", "--config", file])
    scored = [*read_records(tmp_path / "scores", Solution)]
    expected = Verifier.from_pretrained(export, device="cpu").score_solutions(scored)
    for s, values in zip(scored, expected, strict=True):
        assert s.scores["implicit"] == pytest.approx(values, abs=2e-6)
    assert max(abs(values[-1] - 0.5) for values in expected) > 0.05
    main(["test", "--config", file])
    assert "test/solution_auroc_per_problem" in capsys.readouterr().out


@pytest.mark.slow
def test_another_reference_is_loaded_once_and_only_if_needed(graded, one_layer_dir, tmp_path, monkeypatch, caplog):
    """By each run that finds nothing: of other weights, other solutions, or in the place of a damaged file.

    It is gone when training starts.
    """
    reference = other_weights(one_layer_dir, tmp_path / "reference")
    load, start, loaded = ImplicitRewardModel._load_reference, ImplicitRewardModel.on_fit_start, []

    def watched(module: ImplicitRewardModel) -> ImplicitModel:
        model = load(module)
        loaded.append(weakref.ref(model))
        return model

    def checked(module: ImplicitRewardModel) -> None:
        assert all(model() is None for model in loaded)
        start(module)

    monkeypatch.setattr(ImplicitRewardModel, "_load_reference", watched)
    monkeypatch.setattr(ImplicitRewardModel, "on_fit_start", checked)

    def fit(name: str, data: Path = graded) -> Path:
        changes = {"reference": str(reference), "trainer__logger": False, "calibrate": False}
        main(["fit", "--config", implicit(tmp_path / name, data, one_layer_dir, **changes)])
        return tmp_path / name / "export"

    first = fit("first")
    facts = load_export(first)[1]
    assert facts["reference"]["path"] == str(reference)
    assert facts["scaling"] == [1.0, 0.0]
    (found,) = Verifier.from_pretrained(first, device="cpu").score_solutions([ASKED])
    rewards = rewards_by_hand(first, reference, ASKED, 0.05, ASKED.problem + "\n")
    assert found == pytest.approx(torch.tensor(rewards).cumsum(0).sigmoid().tolist(), abs=2e-5)
    fit("second")
    assert len(loaded) == 1
    (kept,) = (tmp_path / "cache").glob("*/log_probs")
    kept.write_bytes(bytes(len(kept.read_bytes())))
    fit("third")
    assert len(loaded) == 2
    fewer = tmp_path / "fewer"
    write_records(fewer / "part-00000.jsonl", pairs()[:14])
    fit("fourth", fewer)
    shutil.rmtree(reference)
    other_weights(one_layer_dir, reference, seed=8)
    fit("fifth")
    assert len(loaded) == 4


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)])
def test_data_that_comes_after_training_has_the_reference_before_it(lora, graded, one_layer_dir, tmp_path):
    """From Python, fit and then test: adapters are off, or the reference is loaded; it is never the trained policy."""
    module = ImplicitRewardModel(
        Backbone(path=str(one_layer_dir), lora=lora), Template(prompt="{problem}\n"), warmup=0.0,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=10.0), calibrate=False,
    )  # fmt: skip
    write_records(tmp_path / "test.jsonl", pairs(3))
    data = SolutionData(Solutions(str(graded)), test=Solutions(str(tmp_path / "test.jsonl")), cache=False)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    plain = AutoModelForCausalLM.from_pretrained(one_layer_dir)
    for example in data.examples["test"]:
        with torch.no_grad():
            expected = log_probs(plain, example.input_ids, example.positions[0])
            now = log_probs(module.model.decode, example.input_ids, example.positions[0])
        assert example.reference == pytest.approx(expected.tolist(), abs=1e-4)
        assert (now - expected).abs().max() > 1e-2


def test_updates_do_not_depend_on_batches(graded, one_layer_dir, tmp_path):
    """Pairs: one step of all 16 solutions, and of small packs one after the other. Two devices: test_distributed.py."""
    for name, changes in (("whole", {}), ("parts", PARTS)):
        main(["fit", "--config", implicit(tmp_path / name, graded, one_layer_dir, **ONE_STEP | changes)])
    expected, start = weights(tmp_path / "whole"), Backbone(path=str(one_layer_dir)).load().state_dict()
    assert max((start[name] - value).abs().max().item() for name, value in expected.items() if name in start) > 1e-3
    found = weights(tmp_path / "parts")
    assert max((found[k] - value).abs().max().item() for k, value in expected.items()) < 2e-6


def test_what_cannot_be_a_reference_is_refused(base, one_layer_dir, characters, tmp_path):
    """Before data is read: a reference that no export could name, or that reads other ids; β of 0."""
    template = Template(prompt="{problem}\n")
    other = tmp_path / "other"
    shutil.copytree(one_layer_dir, other)
    characters.save_pretrained(str(other))
    for settings, keys, message in (
        ({"path": str(base), "weights": "random"}, {}, "backbone.weights: random: the reference is this backbone"),
        ({"path": str(one_layer_dir), "overrides": {"rms_norm_eps": 1e-5}}, {}, "backbone.overrides: the reference is"),
        ({"path": str(one_layer_dir)}, {"reference": str(other)}, "its tokenizer gives other ids than that of"),
        ({"path": str(one_layer_dir)}, {"beta": 0.0}, "beta: expected a number above 0, got 0.0"),
    ):
        with pytest.raises(InputError, match=message):
            ImplicitRewardModel(Backbone(**settings), template, **keys)


def test_a_solution_weighs_once_at_its_final_token(one_layer_dir):
    """Pairs take no weights; without a grade nothing can be learned."""
    module = ImplicitRewardModel(Backbone(path=str(one_layer_dir)), Template(prompt="{problem}\n"))
    record = pairs(2)[3]
    example = module.encode(record, labelled=True)
    tokens = len(module.encoder.token_texts(record))
    assert example.positions == [*range(len(example.input_ids) - tokens, len(example.input_ids))]
    assert example.weights == [0.0] * (tokens - 1) + [1.0]
    assert example.weight() == (1.0, 0.0)
    assert example.targets == [0.0] * tokens
    assert module.encode(record, labelled=False).targets is None
    record.correct = None
    with pytest.raises(InputError, match="no outcome label"):
        module.encode(record, labelled=True)
    assert {"val/solution_auroc", "val/ece_calibrated"} <= module.val_names()


@pytest.mark.parametrize("name", ["implicit", "implicit_dpo"])
def test_the_overlays_train(name, graded, one_layer_dir, tmp_path):
    """The shipped recipe with its overlay, on a tiny model and 16 solutions."""
    every = {"class_path": "Solutions", "init_args": {"path": str(graded), "fold": "all"}}
    small = implicit(tmp_path / "run", graded, one_layer_dir, data__train=every, data__validation=every)
    recipe = ["--config", "lit_configs/gsm8k/06_orm.yaml", "--config", f"lit_configs/gsm8k/ablations/{name}.yaml"]
    main(["fit", *recipe, "--set", f"generator={one_layer_dir}", "--config", small, "--trainer.logger", "false"])
    facts = load_export(tmp_path / "run" / "export")[1]
    assert (facts["objective"], facts["beta"], facts["max_length"]) == ("implicit", 0.05, 768)
