"""What a model computes is measured when it is loaded: trees, padding, windows, logits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from stepverify.data.batch import collate  # noqa: E402
from stepverify.data.batching import PaddedRows  # noqa: E402
from stepverify.data.tree import apart  # noqa: E402
from stepverify.models import Backbone, GeneratorModel, OutcomeModel  # noqa: E402
from stepverify.models.attention import attend, register  # noqa: E402
from stepverify.models.check import reading_of  # noqa: E402
from stepverify.models.rows import decoder_layers, unrolled  # noqa: E402
from stepverify.modules import GeneratorModule  # noqa: E402
from stepverify.records import InputError  # noqa: E402
from tests.families.table import FAMILIES  # noqa: E402
from tests.helpers.stores import examples_of  # noqa: E402

SEQUENCES = [[3, 4, 5, 6, 7, 8, 9], [3, 4, 5], [3, 4, 6], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]]


def tiny(name: str, dtype: Any = None, **changes: Any) -> Any:
    """A family of the table, with random weights, in training mode."""
    from transformers import AutoConfig, AutoModelForCausalLM

    family = next(f for f in FAMILIES if f.name == name)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family.kind, **family.config() | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.to(dtype).train()


@pytest.mark.parametrize("name", ["ministral", "granite", "recurrent_gemma"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_check_leaves_no_trace(name: str, dtype: Any) -> None:
    """Mode, windows, random state, weights and their format, hooks: all as they were, dropout and half formats too."""
    model = tiny(name, dtype, attention_dropout=0.5)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    config, random = model.config.to_dict(), torch.get_rng_state()
    places = {n: p.data_ptr() for n, p in model.named_parameters()}
    modules = [(m.training, getattr(m, "sliding_window", None)) for m in model.modules()]
    reading = reading_of(model)
    assert reading.packed == (name != "recurrent_gemma")
    assert reading.scale == pytest.approx(1 / 7 if name == "granite" else 1.0, abs=0)
    assert torch.equal(random, torch.get_rng_state())
    assert model.config.to_dict() == config
    assert modules == [(m.training, getattr(m, "sliding_window", None)) for m in model.modules()]
    assert places == {n: p.data_ptr() for n, p in model.named_parameters()}
    assert {k: v.dtype for k, v in model.state_dict().items()} == {k: v.dtype for k, v in weights.items()}
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in decoder_layers(model))
    assert model.config._attn_implementation == (register("auto") if reading.packed else "sdpa")
    assert reading_of(model) is reading


def test_layers_that_misread_a_tree_are_found_out() -> None:
    """A Llama whose layers drop the keyword, count positions by the row, or hand a state on from token to token."""
    from transformers.models.llama import modeling_llama

    def drop_tree(model: Any) -> None:
        for layer in model.model.layers:
            forward = layer.self_attn.forward
            layer.self_attn.forward = lambda *args, tree=None, _f=forward, **kwargs: _f(*args, **kwargs)

    def count_by_row(model: Any) -> None:
        rope = model.model.rotary_emb.forward
        model.model.rotary_emb.forward = lambda x, position_ids: rope(x, torch.arange(x.shape[1])[None])

    def carry_on(model: Any) -> None:
        for layer in model.model.layers:
            layer.mlp.register_forward_hook(lambda module, args, out: out + 0.1 * out.roll(1, 1).index_fill(1, torch.tensor(0), 0))  # fmt: skip

    assert isinstance(tiny("llama"), modeling_llama.LlamaForCausalLM)
    assert reading_of(tiny("llama")).packed
    for change, reason in (
        (drop_tree, "its attention is called without the prefix tree"),
        (count_by_row, "hidden states of a tree differ from those of its sequences by"),
        (carry_on, "hidden states of a tree differ from those of its sequences by"),
    ):
        model = tiny("llama")
        change(model)
        reading = reading_of(model)
        assert not reading.packed
        assert reason in reading.reason
        assert model.config._attn_implementation == "sdpa"
        read_as_rows_of_one(GeneratorModel(model))


def test_windows_longer_than_the_check_count() -> None:
    """A window of 32 that attention does not pass on, of which 9 tokens show nothing unless it is narrowed."""
    model = tiny("mistral", sliding_window=32)
    assert reading_of(model).packed
    model = tiny("mistral", sliding_window=32)
    for layer in model.model.layers:
        forward = layer.self_attn.forward
        layer.self_attn.forward = lambda *args, _f=forward, _a=layer.self_attn, **kwargs: without_window(
            _f, _a, args, kwargs
        )
    assert "hidden states of a tree differ" in reading_of(model).reason


def without_window(forward: Any, attention: Any, args: Any, kwargs: Any) -> Any:
    attention.config, own = (
        SimpleNamespace(**vars(attention.config) | {"_attn_implementation": attention.config._attn_implementation}),
        attention.config,
    )
    attention.config.sliding_window = None
    try:
        return forward(*args, **kwargs)
    finally:
        attention.config = own


def test_a_mixer_that_sees_what_follows_is_refused() -> None:
    model = tiny("llama")
    model.model.layers[0].mlp.register_forward_hook(lambda module, args, out: out + out.mean(1, keepdim=True))
    with pytest.raises(InputError, match=r"llama: not a causal language model: hidden states change by .* that follow"):
        reading_of(model)


def test_padding_that_changes_states_is_left_out() -> None:
    """A model that looks at how many tokens a row has: each row alone, which equals it by itself."""
    model = tiny("llama")
    forward = model.model.forward
    model.model.forward = lambda input_ids, **inputs: SimpleNamespace(
        last_hidden_state=forward(input_ids=input_ids, **inputs).last_hidden_state * (1 + (input_ids.shape[0] > 1))
    )
    model.forward = lambda input_ids, **inputs: SimpleNamespace(
        logits=model.lm_head(model.model(input_ids, use_cache=False).last_hidden_state)
    )
    reading = reading_of(model)
    assert reading.row_limit == 0
    read_as_rows_of_one(GeneratorModel(model), shared=False)
    with pytest.raises(InputError, match="longer than 0 tokens must not share prefixes"):
        GeneratorModel(model)(collate(examples_of(SEQUENCES)))


def read_as_rows_of_one(model: GeneratorModel, shared: bool = True) -> None:
    model.eval()
    examples = examples_of(SEQUENCES, [3.0, 4.0, 5.0, 6.0])
    batch = collate(examples, shared=shared, pad_to=8)
    with torch.no_grad():
        found = batch.split(model(batch)[0])
        for values, ids, target in zip(found, SEQUENCES, (3, 4, 5, 6), strict=True):
            logits = model.decode(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
            assert values == pytest.approx((-logits.log_softmax(-1)[:, target]).tolist(), rel=1e-4, abs=1e-5)


def test_attention_without_a_tree_is_an_error() -> None:
    """Never the model's own instead: also where a mask or sinks say more than the tree."""
    model = tiny("llama")
    model.set_attn_implementation(register("sdpa"))
    with pytest.raises(InputError, match="called without the prefix tree"):
        model(torch.tensor([[3, 4, 5]]))
    q = torch.zeros(1, 4, 3, 8)
    tree = collate(examples_of([[3, 4, 5]])).tree
    for more, reason in (
        ({"attention_mask": torch.ones(1, 1, 3, 3)}, "a mask of its own"),
        ({"attention_mask": None, "s_aux": torch.zeros(4)}, "has s_aux"),
    ):
        with pytest.raises(InputError, match=reason):
            attend(model, q, q, q, tree=tree, how=lambda *args: q, **more)


def test_weights_are_needed() -> None:
    with torch.device("meta"):
        model = tiny("llama")
    with pytest.raises(ValueError, match="meta"):
        reading_of(model)


@pytest.mark.parametrize("name", ["phi3 (longrope)", "llama (dynamic rope)"])
def test_rope_that_depends_on_the_row(name: str) -> None:
    """Packed up to its original length of 10 tokens; beyond, each long row alone, whatever was read before."""
    model = OutcomeModel(tiny(name)).eval()
    torch.nn.init.normal_(model.value_head.weight)
    assert model.packs(10)
    assert not model.packs(11)
    short, long = examples_of(SEQUENCES[:3]), examples_of([list(range(3, 20)), *SEQUENCES])
    with torch.no_grad():
        before = model.score(collate(short))
        values = model.score(batch := collate(long, shared=False))
        assert torch.equal(model.score(collate(short)), before)
        alone = [model.score(collate([e], shared=False)).tolist() for e in long]
    for one, other in zip(batch.split(values), alone, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_what_is_not_packed_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny("stablelm").save_pretrained(tmp_path)
    with caplog.at_level("INFO"):
        model = GeneratorModel(Backbone(path=str(tmp_path), lora=None).load())
    read_as_rows_of_one(model)
    (said,) = [r.message for r in caplog.records if "shared prefixes" in r.message]
    assert said.startswith(
        "stablelm: shared prefixes are computed for each solution, in rows with padding (slower): its "
    )


def test_ranks_read_alike() -> None:
    """One that would pack follows another that would not."""
    module = GeneratorModule(Backbone(path="lit_configs/quickstart/base", weights="random"))
    answers: list[bool] = []

    def decide(value: bool, all: bool) -> bool:
        answers.append(value)
        return False

    module._trainer = SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=decide))
    assert module.packs(5)
    module.model = module.build()
    assert module.packs(5)
    module._agree(module.model)
    assert answers == [True]
    assert not module.packs(5)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(20, 90), st.booleans(), st.integers(0, 3))
def test_rows_fit_with_their_padding(lengths: list[int], budget: int, shuffle: bool, seed: int) -> None:
    batches = PaddedRows(lengths, budget)(np.random.default_rng(seed) if shuffle else None)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    if not shuffle:
        longest = [max(lengths[i] for i in batch) for batch in batches]
        assert longest == sorted(longest, reverse=True)


def test_sequences_apart_by_hand() -> None:
    """[3 4], [3]: nothing is shared, and each is a row."""
    forest = apart([[3, 4], [3]])
    assert forest.ids.tolist() == [3, 4, 3]
    assert forest.depth.tolist() == [0, 1, 0]
    assert forest.end.tolist() == [2, 2, 3]
    assert [p.tolist() for p in forest.paths] == [[0, 1], [2]]
    batch = collate(examples_of([[3, 4], [3]]), shared=False)
    assert batch.tree.rows.tolist() == [[0, 1], [2, 2]]

    class Seen(torch.nn.Module):
        def forward(self, input_ids: Any, attention_mask: Any, use_cache: bool) -> Any:
            assert input_ids.tolist() == [[3, 4], [3, 3]]
            assert attention_mask.tolist() == [[1, 1], [1, 0]]
            return SimpleNamespace(last_hidden_state=torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]]))

    assert unrolled(Seen(), batch.input_ids, batch.tree).tolist() == [[1.0], [2.0], [3.0]]
