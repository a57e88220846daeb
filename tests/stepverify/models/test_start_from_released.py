"""Released process reward models as backbones: whose head is kept, and what is said of one that is not."""

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from stepverify.models import Backbone, ProcessModel
from stepverify.modules import ProcessRewardModel
from stepverify.prms import FAMILIES, load_format
from stepverify.records import InputError
from stepverify.template import Template
from tests.helpers import prms

TEMPLATES = {
    "QwenPRM": Template(step_tag="<extra_0>"), "SkyworkPRM": Template(step_tag="#"), "TRLPRM": Template(step_tag="#"),
    "MathShepherdPRM": Template(step_tag="ки"), "RLHFlowPRM": Template(step_tag="#"),
}  # fmt: skip
DROPPED = {"QwenPRM": "4 weights are dropped, score.0.bias", "SkyworkPRM": "2 weights are dropped, v_head.summary.bias"}


@pytest.mark.parametrize("name", [*FAMILIES])
def test_training_starts_from_its_weights(name, tmp_path, caplog, single_thread):
    """Decoders are those of the files. Two families are language models whose label rows go on, TRL's keeps its head."""
    folder = prms.write(name, tmp_path / name)
    with caplog.at_level(logging.INFO):
        model = ProcessRewardModel(Backbone(path=folder), TEMPLATES[name]).build()
    stored = {k: v for file in (tmp_path / name).glob("*.safetensors") for k, v in load_file(file).items()}
    state = model.backbone.state_dict()
    for key in (key for key in stored if key.startswith(("model.", "lm_head."))):
        assert torch.equal(state[key], stored[key]), key
    assert isinstance(model, ProcessModel)
    said = caplog.text
    assert (f"{folder}: {DROPPED.get(name)} among them: a Qwen2ForCausalLM has none of these" in said) == (
        name in DROPPED
    )
    new = f"{folder}: has no output matrix (lm_head.weight): a new one with random values is used"
    assert (new in said) == (name == "QwenPRM")
    if name == "TRLPRM":
        assert model.form == "classifier"
        assert torch.equal(state["score.weight"], stored["score.weight"])
    elif name in ("MathShepherdPRM", "RLHFlowPRM"):
        assert tuple(model.label_ids.tolist()) == load_format(name, folder, name).label_ids


def test_other_missing_weights_are_refused(tmp_path, single_thread):
    folder = prms.write("RLHFlowPRM", tmp_path / "m")
    state = load_file(tmp_path / "m" / "model.safetensors")
    state.pop("model.norm.weight")
    save_file(state, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"m: lacks 1 weights of a LlamaForCausalLM, model.norm.weight among them"):
        Backbone(path=folder).load()
