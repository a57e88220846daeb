"""Models and exports of the Hub, wherever a folder does; the Hub is a cache on this disk, and nothing is downloaded."""

import json
import shutil
from pathlib import Path

import pytest

from sampling import scorers
from sampling.engines import TransformersEngine
from sampling.engines.base import SamplingOptions
from sampling.runtime.inputs import exported_template
from sampling.stages.generate import generate
from sampling.stages.score import score
from stepverify.hub import is_hub_id, local_export, local_model, split_revision
from stepverify.jsonl import read_records, write_records
from stepverify.models import Backbone, LoRA
from stepverify.models.export import save_adapter
from stepverify.models.weights import state_of
from stepverify.modules import OutcomeVerifier, ProcessRewardModel
from stepverify.readers import Synthetic
from stepverify.records import InputError, Solution
from stepverify.template import EXPORT_FILE, Template, load_export
from stepverify.training_problems import TRAINING_PROBLEMS_FILE
from tests.helpers import prms
from tests.helpers.exports import SOLUTIONS, TEMPLATE
from tests.helpers.hub import FakeHub

MISSING = (
    "me/nothing: no such folder, and it is not in the Hub's cache, and HF_HUB_OFFLINE is set: unset it to download "
    f"(relative to the working directory: {Path.cwd() / 'me/nothing'})"
)
GENERATOR = Template(prompt="Q: {problem}\nA:\n")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return FakeHub(tmp_path / "cache")


def scores(path):
    return [s.scores["v"] for s in read_records(path, Solution)]


@pytest.mark.parametrize("kind", ["outcome", "process"])
def test_exports_are_scored_by_id(kind, hub, tmp_path, request):
    """The values and the digests are those of the folder; a revision is another export."""
    folder = request.getfixturevalue(kind)
    write_records(tmp_path / "in.jsonl", SOLUTIONS)
    snapshot = hub.add("me/my-prm", folder)
    hub.add("me/my-prm", request.getfixturevalue("process" if kind == "outcome" else "outcome"), "v1")
    for name, path in (("folder", folder), ("id", "me/my-prm"), ("pinned", "me/my-prm@v1")):
        score(tmp_path / "in.jsonl", tmp_path / name, {"v": path})
    assert scores(tmp_path / "id") == scores(tmp_path / "folder")
    assert {len(values) for values in scores(tmp_path / "pinned")} != {
        len(values) for values in scores(tmp_path / "id")
    }
    said = [
        json.loads((tmp_path / name / "manifest.json").read_text())["config"] for name in ("folder", "id", "pinned")
    ]
    assert said[0] == said[1] != said[2]
    assert local_export("me/my-prm") == str(snapshot)


def test_generators_are_sampled_by_id_with_their_template(hub, tmp_path, tiny_model_dir):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "generator")
    GENERATOR.save(folder, objective="generator")
    hub.add("me/my-generator", folder)
    for name, path in (("folder", str(folder)), ("id", "me/my-generator")):
        generate(
            TransformersEngine(path, device="cpu"), Synthetic("test", 2), tmp_path / name, num_samples=1,
            sampling=SamplingOptions(max_tokens=8),
        )  # fmt: skip
    one, other = ([s.steps for s in read_records(tmp_path / name, Solution)] for name in ("folder", "id"))
    assert one == other
    config = json.loads((tmp_path / "id" / "manifest.json").read_text())["config"]
    assert config["template"]["prompt"] == GENERATOR.prompt
    assert config["engine"]["model"] == "me/my-generator"


def test_training_starts_from_an_id_with_its_template_and_head(hub, tmp_path, outcome, process):
    """An outcome verifier whose head lies in a file of its own keeps it."""
    hub.add("me/my-prm", process)
    module = ProcessRewardModel(Backbone(path="me/my-prm"))
    assert module.template == TEMPLATE
    assert module.backbone_facts["objective"] == "process"
    import torch
    from safetensors.torch import save_file

    folder = shutil.copytree(process, tmp_path / "orm")
    head = {
        "weight": torch.ones(1, json.loads((folder / "config.json").read_text())["hidden_size"]),
        "bias": torch.zeros(1),
    }
    save_file(head, str(folder / "value_head.safetensors"))
    (folder / TRAINING_PROBLEMS_FILE).write_text("0123456789abcdef\n")
    hub.add("me/my-orm", folder)
    made = OutcomeVerifier(Backbone(path="me/my-orm"), template=TEMPLATE).build()
    assert made.value_head.weight.sum() == head["weight"].sum()


def test_adapters_name_repository_and_revision(hub, tmp_path, tiny_model_dir):
    hub.add("me/base", tiny_model_dir, "v1")
    model = Backbone(path="me/base@v1", lora=LoRA(rank=2)).load()
    (tmp_path / "adapter").mkdir()
    save_adapter(model, tmp_path / "adapter", state_of(model.state_dict()), "me/base@v1", None)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("me/base", "v1")


def test_released_models_are_scored_by_id(hub, tmp_path):
    hub.add("Qwen/Qwen2.5-Math-PRM-7B", prms.write("QwenPRM", tmp_path / "qwen"))
    found = scorers.QwenPRM("Qwen/Qwen2.5-Math-PRM-7B").identity()
    assert found == scorers.QwenPRM(str(tmp_path / "qwen")).identity()


def test_an_id_that_is_not_there_is_one_line(hub, process):
    hub.add("me/my-prm", process)
    for read in (
        lambda: local_model("me/nothing"), lambda: exported_template("me/nothing"), lambda: Backbone(path="me/nothing").folder,
        lambda: ProcessRewardModel(Backbone(path="me/nothing")), lambda: TransformersEngine("me/nothing").tokenizer,
        lambda: scorers.QwenPRM("me/nothing").identity(), lambda: scorers.ExportedVerifier("me/nothing").identity(),
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            read()
        assert str(caught.value) == MISSING
    with pytest.raises(InputError, match=r"^me/my-prm@v2: no such folder, and it is not in the Hub's cache"):
        local_export("me/my-prm@v2")


def test_a_template_that_may_be_missing_is_not_guessed_silently(hub, tiny_model_dir, tmp_path, capsys):
    """A cache that another library filled may lack the file although the repository has it."""
    hub.add("me/plain", tiny_model_dir)
    assert exported_template("me/plain") == Template()
    assert f"WARNING: me/plain: the Hub's cache has no {EXPORT_FILE} of it" in capsys.readouterr().out
    hub.lacks("me/plain", EXPORT_FILE)
    assert exported_template("me/plain") == Template()
    assert exported_template(str(tiny_model_dir)) == exported_template("a-name") == Template()
    assert capsys.readouterr().out == ""


def test_names_of_repositories(tmp_path, monkeypatch):
    assert split_revision("me/x@refs/pr/1") == ("me/x@refs/pr/1", None)  # a path with more slashes is none of the Hub
    assert split_revision("me/x@v1") == ("me/x", "v1")
    assert split_revision("me/x") == ("me/x", None)
    assert not any(map(is_hub_id, ("gpt2", "./a/b", "/a/b", "~/a", "a/b/c", "../a")))
    (tmp_path / "me" / "x@v1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert split_revision("me/x@v1") == ("me/x@v1", None)  # a folder of this name goes first
    assert local_model("me/x@v1") == "me/x@v1"


def test_a_folder_and_its_export_file_agree(process):
    assert load_export(local_export(process))[0] == TEMPLATE
