"""What a first configuration is chosen by: tokens of a tokenizer, memory of a machine."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from stepverify.records import InputError
from stepverify.starting.machine import Sizes, plan
from stepverify.starting.text import choose_tag, choose_text
from stepverify.template import Template

GIB = 2**30
# Qwen2.5-1.5B: 28 layers, h = 1536, f = 8960, k = 2 × 128.
SIZES = Sizes(
    parameters=1_543_714_304, hidden=1536, mlp=8960, keys=256, layers=28, vocabulary=151_936, context=32_768
)  # fmt: skip


def test_tag_is_no_label_and_in_no_solution(characters, make_solution):
    """``<step>`` is the only added token without a use; a solution that holds it takes it away."""
    assert choose_text(characters, [make_solution()], None, labels=True).template.step_tag == "<step>"
    chosen = choose_text(characters, [make_solution(["1 <step>"])], None, labels=True).template
    assert chosen.step_tag not in ("<step>", "+", "-", "1", " ")
    assert chosen.step_tag == "9", "the last of the vocabulary that the solution lacks"


def test_no_token_is_left(characters, make_solution):
    everything = make_solution(["Q", "A", "+-=abc #:0123456789", "<step>"])
    with pytest.raises(InputError, match="every token of its vocabulary is in a solution"):
        choose_tag(characters, {0, 1, 2, 3}, [everything])


def test_unused_special_tokens_come_first(characters, make_solution):
    from copy import deepcopy

    from tokenizers import AddedToken

    tokenizer = deepcopy(characters)
    tokenizer.add_tokens([AddedToken("<|fim_pad|>", normalized=False), AddedToken("<|reserved_special_token_0|>")])
    text = choose_text(tokenizer, [make_solution(["1 <step>"])], None, labels=True)
    assert text.template.step_tag == "<|fim_pad|>"
    assert text.written == {"step_tag": "<|fim_pad|>"}


def test_template_of_an_export_is_kept_unless_a_solution_has_its_tag(characters, make_solution):
    exported = Template(prompt="{problem}\n", step_tag="<step>")
    assert choose_text(characters, [make_solution()], exported, labels=True).written is None
    changed = choose_text(characters, [make_solution(["<step>"])], exported, labels=True)
    assert changed.written["prompt"] == "{problem}\n"
    assert changed.template.step_tag != "<step>"


def test_chat_template_is_used_where_it_can_be(characters, make_solution):
    from copy import deepcopy

    tokenizer = deepcopy(characters)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    chosen = choose_text(tokenizer, [make_solution()], None, labels=True)
    assert chosen.written == {"chat": True, "step_separator": "\n\n", "step_tag": "<step>"}
    tokenizer.chat_template = "{{ messages[0].content | trim | upper }}"
    plain = choose_text(tokenizer, [make_solution()], None, labels=True)
    assert "chat" not in plain.written
    assert "the chat template cannot be used" in plain.said[0]


def test_memory_of_a_step_is_that_of_the_overlay():
    """lit_configs/overlays/gpu.yaml: 16 P and 2 P are 25.9 GiB, activations of 8,192 tokens 28 × 119 KB each."""
    need = SIZES.need(8192, lora=False, mixed=True, recomputed=False)
    activations = 28 * 8192 * (8 * 8960 + 30 * 1536 + 4 * 256)
    assert need == 18 * 1_543_714_304 + activations + 8 * 151_936 * 1024
    assert SIZES.need(8192, lora=False, mixed=True, recomputed=True) < need - activations // 2


@pytest.mark.parametrize(
    ("gib", "lora", "pack"),
    [(80, False, 8192), (40, False, 8192), (20, True, 8192), (12, True, 2048)],
)  # fmt: skip
def test_adapters_where_all_parameters_do_not_fit(gib, lora, pack):
    """Training all parameters takes 26 GiB without activations, adapters 9; recomputed, 1,024 tokens take 0.3 more."""
    chosen = plan("m", SIZES, 600, 10**7, ("H", gib * GIB, True))
    assert (chosen.lora, chosen.pack_tokens, chosen.precision) == (lora, pack, "bf16-mixed")


def test_little_data_makes_small_batches():
    """20,000 tokens in 20 steps are 1,000 each: the pack that the longest solution fits into, and no larger."""
    assert plan("m", SIZES, 600, 20_000, ("H", 80 * GIB, True)).pack_tokens == 1024
    assert plan("m", SIZES, 200, 20_000, ("H", 80 * GIB, True)).pack_tokens == 512
