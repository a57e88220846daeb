"""What whole fits leave after: every form stands alone, and the code on its card gives the verifier's own scores."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

torch = pytest.importorskip("torch")

from stepverify.callbacks.card import Card  # noqa: E402
from stepverify.jsonl import read_records  # noqa: E402
from stepverify.models import Backbone, load_verifier  # noqa: E402
from stepverify.modules import OutcomeVerifier, ProcessRewardModel  # noqa: E402
from stepverify.records import InputError, Solution  # noqa: E402
from stepverify.template import Template, load_export  # noqa: E402
from stepverify.verifier import Verifier  # noqa: E402
from tests.helpers.cards import blocks, run_card  # noqa: E402
from tests.helpers.fits import fit, write_labelled  # noqa: E402
from tests.helpers.tiny import model_folder  # noqa: E402

ROOT = Path(__file__).parents[3]
TEMPLATE = Template(prompt="{problem}\n")
ASKED = Solution(id="p#0", problem_id="p", problem="What is 2 + 3?", steps=["2 + 3 = 5", "#### 5"])


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return write_labelled(tmp_path_factory.mktemp("data") / "labelled", 24)


@pytest.fixture(scope="module")
def exports(one_layer_dir, labelled, tmp_path_factory):
    """Every kind, trained with adapters, in every form."""
    root = tmp_path_factory.mktemp("fits")
    backbone = {"path": str(one_layer_dir), "lora": {"rank": 2, "alpha": 8}}
    kinds = ("GeneratorModule", "OutcomeVerifier", "ProcessRewardModel")
    return {kind: fit(root / kind, kind, labelled, backbone, adapter=True) for kind in kinds}


def test_each_form_stands_alone(exports):
    forms = {
        "GeneratorModule": {".": "causal", "adapter": "adapter"},
        "OutcomeVerifier": {".": "classifier", "adapter": "adapter"},
        "ProcessRewardModel": {".": "causal", "classifier": "classifier", "adapter": "adapter"},
    }
    for kind, folder in exports.items():
        assert {p.parent.name for p in folder.rglob("stepverify.json")} == {
            folder.name if place == "." else place for place in forms[kind]
        }
        for place, form in forms[kind].items():
            template, facts = load_export(folder / place)
            assert (template, facts["form"]) == (TEMPLATE, form)
            weights = "adapter_model.safetensors" if form == "adapter" else "model.safetensors"
            assert all((folder / place / name).is_file() for name in (weights, "tokenizer.json", "README.md"))


@pytest.mark.parametrize("kind", ["OutcomeVerifier", "ProcessRewardModel"])
def test_the_cards_code_gives_the_verifiers_scores(kind, exports, monkeypatch):
    """Merged, as a classifier and as adapters on the base: plain transformers and peft say what we say."""
    folder = exports[kind]
    (wanted,) = Verifier.from_pretrained(folder, device="cpu").score_solutions([ASKED])
    assert len(wanted) == (2 if kind == "ProcessRewardModel" else 1)
    for card in sorted(folder.rglob("README.md")):
        names = run_card(card.parent, monkeypatch)
        found = names["scores"] if kind == "ProcessRewardModel" else [names["score"]]
        assert found == pytest.approx(wanted, abs=1e-5), card
        if card.parent.name == "adapter":
            model, ids = names["model"], torch.tensor([names["ids"]])
            with torch.inference_mode():
                adapted = model(input_ids=ids).logits
                with model.disable_adapter():
                    assert (model(input_ids=ids).logits - adapted).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("precision", "weights", "computed"),
    [
        pytest.param("32-true", "float32", "float32", marks=pytest.mark.slow),  # the other tests' cards
        ("32-true", "bfloat16", "bfloat16"),
        ("bf16-mixed", "float32", "bfloat16"),
    ],
)
def test_a_verifier_is_read_in_the_format_of_its_training(
    precision, weights, computed, one_layer_dir, labelled, tmp_path, monkeypatch
):
    """Products round to 8 bits in one and to 24 in the other: the scores, and those of the card's code, tell which."""
    backbone = {"path": str(one_layer_dir), "dtype": weights}
    folder = fit(tmp_path / "run", "ProcessRewardModel", labelled, backbone, precision=precision)
    assert load_export(folder)[1]["dtype"] == load_export(folder / "classifier")[1]["dtype"] == computed
    (found,), (same,), (other,) = (
        Verifier.from_pretrained(folder, dtype=dtype, device="cpu").score_solutions([ASKED])
        for dtype in ("auto", computed, "bfloat16" if computed == "float32" else "float32")
    )
    assert found == same != other
    names = run_card(folder, monkeypatch)
    assert names["model"].dtype == getattr(torch, computed)
    assert names["scores"] == pytest.approx(found, abs=1e-5 if computed == "float32" else 5e-3)
    assert f'dtype="{computed}")' in blocks(folder / "README.md")[1]  # vLLM's


def test_the_generators_card_writes_what_the_model_writes(exports, monkeypatch):
    from transformers import AutoModelForCausalLM

    folder = exports["GeneratorModule"]
    merged, adapted = (run_card(folder / place, monkeypatch) for place in (".", "adapter"))
    assert merged["text"] == adapted["text"] != ""
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        first = model(torch.tensor([merged["ids"]])).logits[0, -1].argmax()
    assert merged["sampled"][0, len(merged["ids"])] == first


def test_a_card_says_what_the_run_was(exports, labelled, one_layer_dir):
    folder = exports["ProcessRewardModel"]
    card = (folder / "README.md").read_text()
    _, matter, text = card.split("---\n", 2)
    front = yaml.safe_load(matter)
    assert front["library_name"] == "transformers"
    assert front["pipeline_tag"] == "token-classification"
    assert "process-reward-model" in front["tags"]
    assert "base_model" not in front  # a folder of this machine is none of the hub's
    tokens = sum(len(i) for i in encoded(labelled, folder))
    for said in (
        f"- train: 24 solutions, {tokens:,} tokens, read by `stepverify.readers.Solutions` (path: {labelled}, fold: all",
        '| prompt | `"{problem}\\n"` |  |', f'| step_tag | `"<step>"` | {encoder_of(folder).step_tag_id} |',
        "4 steps in 2 epochs on 1 device.", "class_path: stepverify.modules.ProcessRewardModel", "lr: 0.03",
        f"torch {torch.__version__}", "peft ", "| step_auroc | ", "`classifier/` as `AutoModelForTokenClassification`",
    ):  # fmt: skip
        assert said in text, said
    assert str(folder.parent) not in card
    rest = card.replace(str(labelled), "").replace(str(one_layer_dir), "")
    assert not re.search(r"(?<!\w)/(?:[\w.-]+/)+", rest)  # no folder of this machine but those that the recipe names
    adapter = yaml.safe_load((folder / "adapter" / "README.md").read_text().split("---\n")[1])
    assert adapter["library_name"] == "peft"
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert str(folder.parent) not in json.dumps(config)


def encoder_of(folder):
    return load_verifier(str(folder))[1]


def encoded(data, folder):
    encoder = encoder_of(folder)
    return [encoder.process(s, None).input_ids for s in read_records(data, Solution)]


def test_an_adapter_is_not_scored_with(exports):
    with pytest.raises(InputError, match="score with the merged export"):
        load_verifier(str(exports["ProcessRewardModel"] / "adapter"))


def card_of(repository: str | None, path: str) -> dict[str, Any]:
    module = ProcessRewardModel(Backbone(path="lit_configs/quickstart/base", weights="random"), TEMPLATE)
    module.model = module.build()
    module.backbone_source = Backbone(path=path)
    module.trainer = trainer = SimpleNamespace(
        callback_metrics={}, current_epoch=1, global_step=4, world_size=1, datamodule=None, callbacks=[],
        precision="32-true",
    )  # fmt: skip
    card = Card(trainer, module, {"causal": ".", "classifier": "classifier"}, repository)
    return {form: card.render(form, Path("lit_configs/quickstart/base")) for form in ("causal", "classifier")}


def test_a_card_on_the_hub_names_repository_and_base(monkeypatch):
    monkeypatch.chdir(ROOT)
    cards = card_of("me/prm", "Qwen/Qwen2.5-1.5B")
    assert "base_model: Qwen/Qwen2.5-1.5B\nbase_model_relation: finetune\n" in cards["causal"]
    assert 'path = snapshot_download("me/prm")\n' in cards["causal"]
    assert 'path = snapshot_download("me/prm") + "/classifier"\n' in cards["classifier"]
    assert "base_model:" not in card_of(None, "lit_configs/quickstart/base")["causal"]


@pytest.mark.slow
def test_adapters_of_a_sharded_model(one_layer_dir, labelled, tmp_path: Path):
    """FSDP2 on two processes: the adapters gathered from the shards, on the base, are the merged model."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    export = {"class_path": "HuggingFaceExport", "init_args": {"folder": str(tmp_path / "export"), "adapter": True}}
    reader = {"class_path": "stepverify.readers.Solutions", "init_args": {"path": str(labelled)}}
    settings = {
        "model": {
            "class_path": "stepverify.modules.ProcessRewardModel",
            "init_args": {"backbone": {"path": str(one_layer_dir)}, "template": {"prompt": "{problem}\n"}},
        },
        "data": {"train": reader, "batch_size": 8},
        "trainer": {
            "default_root_dir": str(tmp_path), "max_steps": 2, "accelerator": "cpu", "callbacks": [export],
            "enable_checkpointing": False, "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
        },
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    overlays = [w for name in ("lora", "fsdp2") for w in ("--config", f"lit_configs/overlays/{name}.yaml")]
    done = subprocess.run(
        [sys.executable, "-m", "stepverify.cli", "fit", "--config", str(tmp_path / "c.yaml"), *overlays, "--trainer.devices", "2"],
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    base = AutoModelForCausalLM.from_pretrained(one_layer_dir)
    adapted = PeftModel.from_pretrained(base, tmp_path / "export" / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "export").eval()
    given = torch.randint(5, 35, (2, 30))
    with torch.inference_mode():
        torch.testing.assert_close(adapted(given).logits, merged(given).logits, atol=1e-5, rtol=1e-5)
        with adapted.disable_adapter():
            assert (adapted(given).logits - merged(given).logits).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("kind", "architecture", "changes", "lora"),
    [
        ("OutcomeVerifier", "granite", {"logits_scaling": 7.0}, {"rank": 2, "alpha": 8}),
        ("OutcomeVerifier", "mamba", {"state_size": 8}, None),
        ("ProcessRewardModel", "gemma2", {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 2.0}, None),
    ],
)
def test_the_code_of_other_architectures(kind, architecture, changes, lora, tokenizer, labelled, tmp_path, monkeypatch):
    """A value head beside a causal model, on adapters and on a recurrent model; attention and logits with bounds."""
    base = model_folder(architecture, tmp_path / "base", tokenizer, **changes)
    head = {"model": {"head": "linear"}} if architecture == "mamba" else {}
    folder = fit(tmp_path / "run", kind, labelled, {"path": str(base), "lora": lora}, adapter=lora is not None, **head)
    (wanted,) = Verifier.from_pretrained(folder, device="cpu").score_solutions([ASKED])
    cards = sorted(folder.rglob("README.md"))
    assert len(cards) == (2 if lora else 1)
    for card in cards:
        names = run_card(card.parent, monkeypatch)
        found = names["scores"] if kind == "ProcessRewardModel" else [names["score"]]
        assert found == pytest.approx(wanted, abs=1e-5), card
        assert (card.parent / "value_head.safetensors").is_file() == (kind == "OutcomeVerifier")
        assert len(blocks(card)) == 1  # vLLM would read another model
    bounded = 'attn_implementation="eager"' in cards[0].read_text()
    assert bounded == (architecture == "gemma2")
    if kind == "OutcomeVerifier":
        assert load_export(folder)[1]["form"] == "value_head"
        again = OutcomeVerifier(Backbone(path=str(folder)), head="linear").build()
        assert torch.equal(again.value_head.weight, load_verifier(str(folder))[0].value_head.weight)
