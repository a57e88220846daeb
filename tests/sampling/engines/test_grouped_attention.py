"""One query a row, of several heads for each key: the values of transformers' attention, which repeats the keys."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from sampling.engines.grouped_attention import grouped, grouped_attention
from tests.helpers.tiny import SMALL

LAYER = SimpleNamespace(num_key_value_groups=3, is_causal=True, training=False)


@pytest.mark.parametrize(("heads", "length", "masked"), [(6, 1, True), (6, 1, False), (6, 4, True), (2, 1, True)])
def test_values_are_those_with_repeated_keys(heads, length, masked):
    """Two key heads of 5 rows and 7 keys, the first ones of row n hidden n times; six query heads, or two."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(5, heads, length, 8, generator=generator)
    key, value = torch.randn(2, 5, 2, 7, 8, generator=generator)
    mask = (torch.arange(7) >= torch.arange(5)[:, None])[:, None, None].expand(5, 1, length, 7) if masked else None
    layer = SimpleNamespace(**vars(LAYER) | {"num_key_value_groups": heads // 2})
    expected, _ = sdpa_attention_forward(layer, query, key, value, mask, scaling=0.3, is_causal=False)
    found, _ = grouped(layer, query, key, value, mask, scaling=0.3, is_causal=False)
    assert found.shape == (5, length, heads, 8)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
def test_a_padded_row_has_the_logits_of_its_own_attention(kind):
    """Four heads on two key heads; the second row is two tokens shorter. Afterwards the model is as before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL)).eval()
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [0, 0, 7, 5, 9, 6]])
    found = []
    for replaced in (False, True):
        with torch.inference_mode():
            read = network(input_ids=ids[:, :5], attention_mask=mask[:, :5], position_ids=positions[:, :5])
            given = {"input_ids": ids[:, 5:], "attention_mask": mask, "position_ids": positions[:, 5:]}
            if replaced:
                with grouped_attention(network):
                    assert network.config._attn_implementation == "stepverify_grouped"
                    found.append(network(**given, past_key_values=read.past_key_values).logits)
            else:
                found.append(network(**given, past_key_values=read.past_key_values).logits)
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)
    assert network.config._attn_implementation == "sdpa"
