"""Headers of checkpoints: parameters counted without reading weights."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from sampling.engines import CalculatorEngine, ServerEngine, TransformersEngine, VllmEngine
from sampling.engines.transformers import LoadedEngine
from stepverify.records import InputError
from stepverify.tensors import count_parameters, tensor_shapes

# The quickstart's model: 3 layers of projections with biases to queries, keys and values (3 * (64 * 64 + 64)), back
# (64 * 64), an MLP (3 * 64 * 192) and two norms (2 * 64); a final norm; 35 * 64 embeddings, shared with the output.
LAYER = 3 * (64 * 64 + 64) + 64 * 64 + 3 * 64 * 192 + 2 * 64
TINY = 3 * LAYER + 64 + 35 * 64


def test_parameters_of_a_folder(tiny_model_dir):
    """163,008 = 3 * 53,568 + 64 + 2,240, as the loaded model says; the shared matrix is stored and counted once."""
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    assert TINY == 163_008 == loaded.num_parameters() == count_parameters(tiny_model_dir)
    assert tensor_shapes([tiny_model_dir / "model.safetensors"])["model.norm.weight"] == (64,)


def test_engines_know_their_models_size(tiny_model_dir):
    """Without loading it; a server's is what its key says."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    engine = TransformersEngine(str(tiny_model_dir))
    for one in (engine, VllmEngine(str(tiny_model_dir)), CalculatorEngine(engine), LoadedEngine(network, None)):
        assert one.num_parameters == TINY
    url = "http://127.0.0.1:1/v1"
    assert ServerEngine("m", url).num_parameters is None
    assert CalculatorEngine(ServerEngine("m", url, num_parameters=7)).num_parameters == 7
    with pytest.raises(InputError, match=r"^num_parameters: expected 1 or more, or null, got 0$"):
        ServerEngine("m", url, num_parameters=0)


def test_unknown_numbers_are_none(tmp_path, tiny_model_dir):
    """No folder, no weights, an adapter alone, several weights in one stored number; a copy in Mistral's names is one."""
    assert count_parameters("a/repository") is None
    assert count_parameters(tmp_path) is None
    shutil.copytree(tiny_model_dir, tmp_path / "m")
    save_file({"tok_embeddings.weight": torch.zeros(35, 64)}, tmp_path / "m" / "consolidated.safetensors")
    assert count_parameters(tmp_path / "m") == TINY
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "awq"}}))
    assert count_parameters(tmp_path / "m") is None
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"text_config": {"quantization_config": {}}}))
    assert count_parameters(tmp_path / "m") is None
    (tmp_path / "m" / "config.json").unlink()
    (tmp_path / "m" / "adapter_config.json").write_text("{}")
    assert count_parameters(tmp_path / "m") is None


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", (9).to_bytes(8, "little") + b"{"])
def test_a_broken_file_is_named(content, tmp_path):
    """A pointer in place of the file, whose first bytes say 2^62 bytes, and a file that was cut off."""
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: not a safetensors file \(its header is longer"):
        count_parameters(tmp_path)
