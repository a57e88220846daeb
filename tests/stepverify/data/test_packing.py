"""Shared prefixes: what is computed in a tree equals what is computed row by row, in losses, gradients and scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from stepverify.data.batch import collate  # noqa: E402
from stepverify.data.encode import Example  # noqa: E402
from stepverify.data.packing import PrefixPacks, bundles, count_once  # noqa: E402
from stepverify.data.tree import share  # noqa: E402
from tests.helpers.stores import (  # noqa: E402
    examples_of,
    solution,
    store_of,
)

SMALL = {
    "vocab_size": 12, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.3,
}  # fmt: skip
# Windows of 4 are shorter than most paths.
ARCHITECTURES = {
    "qwen2": ("Qwen2Config", {}),
    "qwen2-window": ("Qwen2Config", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "llama": ("LlamaConfig", {"attention_bias": True}),
    "gemma2": ("Gemma2Config", {"sliding_window": 4, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3TextConfig", {"sliding_window": 4, "query_pre_attn_scalar": 8}),
}
EXACT = ["paths", "sdpa", "eager"]

# Few different tokens: prefixes are shared often, and of any length.
token_lists = st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=9), min_size=1, max_size=7)


def model_of(architecture: str, attention: str, head: str = "outcome"):
    import transformers

    from stepverify.models import GeneratorModel, OutcomeModel, ProcessModel
    from stepverify.models.attention import register

    name, extra = ARCHITECTURES[architecture]
    config = getattr(transformers, name)(**SMALL | extra)
    torch.manual_seed(0)
    backbone = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=register(attention))
    if head == "outcome":
        model = OutcomeModel(backbone)
        torch.nn.init.normal_(model.value_head.weight, std=0.5)
        return model
    return ProcessModel(backbone, (7, 8)) if head == "process" else GeneratorModel(backbone)


@given(token_lists)
def test_a_forest_holds_every_sequence_and_each_prefix_once(sequences):
    forest = share(sequences)
    for sequence, path in zip(sequences, forest.paths, strict=True):
        assert forest.ids[path].tolist() == sequence
        assert forest.depth[path].tolist() == list(range(len(sequence)))
        # Token i sees token j where j ≤ i < end[j]: along a path exactly what came before.
        for place, token in enumerate(path):
            seen = [j for j in range(len(forest.ids)) if j <= token < forest.end[j]]
            assert seen == path[: place + 1].tolist()
    prefixes = {tuple(s[: i + 1]) for s in sequences for i in range(len(s))}
    assert len(forest.ids) == len(prefixes)
    # Every token lies on a leaf's path, and no leaf is a prefix of another.
    assert {t for leaf in forest.leaves for t in forest.paths[leaf]} == set(range(len(forest.ids)))
    ends = {tuple(sequences[leaf]) for leaf in forest.leaves}
    assert len(ends) == len(forest.leaves)
    assert not any(a != b and a == b[: len(a)] for a in ends for b in ends)


def test_a_small_tree_by_hand():
    """[3 4 5], [3 4], [3 6 5]: 3 4 5 | 6 5. The 4 is continued by 5 alone, the 3 by everything."""
    forest = share([[3, 4, 5], [3, 4], [3, 6, 5]])
    assert forest.ids.tolist() == [3, 4, 5, 6, 5]
    assert forest.depth.tolist() == [0, 1, 2, 1, 2]
    assert forest.end.tolist() == [5, 3, 3, 5, 5]
    assert [p.tolist() for p in forest.paths] == [[0, 1, 2], [0, 1], [0, 3, 4]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("attention", EXACT)
def test_hidden_states_equal_plain_transformers(architecture, attention):
    """One row a sequence, transformers' eager attention: hidden states agree to 2e-5 of their size."""
    rng = np.random.default_rng(0)
    sequences = [[3, 4, *rng.integers(3, 7, rng.integers(1, 9)).tolist()] for _ in range(8)]
    model = model_of(architecture, attention).eval()
    batch = collate(examples_of(sequences))
    assert len(batch.input_ids) < batch.num_tokens
    with torch.no_grad():
        states = model.states(batch)
        model.backbone.set_attn_implementation("eager")
        for sequence, row in zip(sequences, share(sequences).paths, strict=True):
            plain = model.backbone.get_decoder()(torch.tensor([sequence])).last_hidden_state[0]
            torch.testing.assert_close(states[torch.from_numpy(row)], plain, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("architecture", ["qwen2-window", "gemma2", "llama"])
def test_flex_equals_paths(architecture, compiled, monkeypatch):
    """On the CPU without gradients; with them where there is a GPU."""
    if not compiled:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        monkeypatch.setattr(
            "stepverify.models.attention.dense._flex_functions", lambda: (flex_attention, create_block_mask)
        )
    rng = np.random.default_rng(1)
    sequences = [[3, 4, *rng.integers(3, 7, rng.integers(1, 9)).tolist()] for _ in range(8)]
    batch = collate(examples_of(sequences), pad_to=128)
    with torch.no_grad():
        one, other = (model_of(architecture, how).eval().score(batch) for how in ("flex", "paths"))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has a backward pass on GPU alone")
def test_flex_gradients_equal_paths():
    batch = collate(examples_of([[3, 4, 5, 6], [3, 4, 4], [3, 5]]), pad_to=128).to("cuda")
    gradients = [_loss_and_gradients(model_of("qwen2", how).cuda(), [batch])[1] for how in ("flex", "paths")]
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], rtol=1e-3, atol=1e-4)


def _loss_and_gradients(model, batches):
    from stepverify.losses import OutcomeMSE, StepCrossEntropy, TokenNLL

    loss = {"outcome": OutcomeMSE, "process": StepCrossEntropy, "generator": TokenNLL}[model.objective]()
    model.zero_grad()
    parts = [loss(model(b)[0], b.scored, model) for b in batches]
    loss = sum(total for total, _ in parts) / sum(count for _, count in parts)
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


# Every attention and every loss; an objective changes nothing below the hidden states.
FAST = [("qwen2", "outcome"), ("qwen2-window", "process"), ("llama", "generator"), ("gemma3", "outcome"), ("gemma3", "generator")]  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "objective"),
    [
        pytest.param(architecture, objective, marks=[pytest.mark.slow] * ((architecture, objective) not in FAST))
        for architecture in ("qwen2", "qwen2-window", "llama", "gemma3")
        for objective in ("outcome", "process", "generator")
    ],
)
@settings(max_examples=4, deadline=None)
@given(sequences=token_lists, once=st.booleans(), pad_to=st.sampled_from([1, 8]))
def test_packed_equals_unpacked(architecture, objective, sequences, once, pad_to):
    """Loss and all gradients of any tree, in one pack and in one batch a solution, with either weighting."""
    targets = None
    if objective == "generator":
        targets = [float(3 + i % 4) for i in range(len(sequences))]
    examples = examples_of(sequences, targets)
    if once:
        count_once(examples := store_of(*examples))
        assert sum(e.weight()[0] for e in examples) == pytest.approx(len(share(sequences).ids))
    model = model_of(architecture, "paths", objective)
    packed, one = _loss_and_gradients(model, [collate(examples, pad_to=pad_to)])
    apart, other = _loss_and_gradients(model, [collate([e]) for e in examples])
    assert packed == pytest.approx(apart, rel=1e-5)
    assert one.keys() == other.keys()
    largest = max(g.abs().max().item() for g in other.values())
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=2e-5 * largest, msg=name)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_token_losses_are_the_causal_models_own(architecture):
    """Against the cross-entropy of transformers' own logits, bounded ones (Gemma 2) too."""
    sequences = [[3, 4, 5, 6, 3], [3, 4, 4, 7]]
    examples = [
        Example(s[:-1], list(range(len(s) - 1)), [float(i) for i in s[1:]], solution(i))
        for i, s in enumerate(sequences)
    ]
    model = model_of(architecture, "paths", "generator").eval()
    if architecture == "gemma2":
        assert model.softcap
    batch = collate(examples)
    with torch.no_grad():
        found = batch.split(model(batch)[0])
        model.backbone.set_attn_implementation("eager")
        for values, sequence in zip(found, sequences, strict=True):
            logits = model.backbone(torch.tensor([sequence[:-1]])).logits[0]
            expected = torch.nn.functional.cross_entropy(logits, torch.tensor(sequence[1:]), reduction="none")
            assert values == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.slow
def test_compiled_layers_compute_the_same_in_one_graph():
    """Twelve packs of different shapes: the losses of the plain model, one graph for all layers, no recompilation."""
    import torch._dynamo as dynamo

    from stepverify.models import Backbone, OutcomeModel

    rng = np.random.default_rng(0)
    packs = [
        collate(examples_of([[3, 4, *rng.integers(3, 30, rng.integers(2, 40)).tolist()] for _ in range(rng.integers(3, 30))]), pad_to=256)
        for _ in range(12)
    ]  # fmt: skip
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = OutcomeModel(Backbone(path="lit_configs/quickstart/base", weights="random", compile=compiled).load())
        torch.nn.init.normal_(model.value_head.weight)
        dynamo.reset()
        dynamo.utils.counters.clear()
        losses.append([_loss_and_gradients(model, [pack])[0] for pack in packs])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not dynamo.utils.counters["graph_break"]


@given(token_lists, st.data())
def test_values_go_back_to_their_records(sequences, data):
    """Each read carries its own token and target: every record gets them along its own positions."""
    examples = [
        Example(ids, sorted(data.draw(st.sets(st.integers(0, len(ids) - 1), min_size=1))), None, solution(i))
        for i, ids in enumerate(sequences)
    ]
    batch = collate(examples)
    values = batch.input_ids[batch.scored.index] * 100 + batch.tree.depth[batch.scored.index]
    expected = [[float(e.input_ids[p] * 100 + p) for p in e.positions] for e in examples]
    assert batch.split(values) == expected
    assert values[batch.last()].tolist() == [e[-1] for e in expected]


def test_shared_positions_are_read_once_for_each_target():
    """[3 4] correct, [3 5] correct, [3 6] incorrect: the 3 is read for 1 with weight 2, for 0 with weight 1."""
    batch = collate(examples_of([[3, 4], [3, 5], [3, 6]], [1.0, 1.0, 0.0]))
    reads = zip(batch.scored.index.tolist(), batch.scored.targets.tolist(), batch.scored.weights.tolist(), strict=True)
    assert sorted(reads) == [(0, 0.0, 1.0), (0, 1.0, 2.0), (1, 1.0, 1.0), (2, 1.0, 1.0), (3, 0.0, 1.0)]
    examples = store_of(*examples_of([[3, 4], [3, 5], [3, 6]], [1.0, 1.0, 0.0]))
    count_once(examples)
    assert collate(examples).scored.weights.sum().item() == pytest.approx(4)


def test_a_position_counts_once_among_those_that_read_it():
    """A path read at all three tokens, two that share its first two and are read at their last alone: 3 + 2 in all."""
    examples = examples_of([[3, 4, 5], [3, 4, 6], [3, 4, 6]])
    for example in examples[1:]:
        example.positions, example.targets = [2], [0.0]
    count_once(examples := store_of(*examples))
    assert [e.weights for e in examples] == [[1.0, 1.0, 1.0], [0.5], [0.5]]


@given(token_lists, st.integers(9, 20))
def test_bundles_hold_everything_within_the_budget(sequences, budget):
    made = bundles(sequences, budget)
    assert sorted(i for bundle, _ in made for i in bundle) == list(range(len(sequences)))
    for bundle, size in made:
        assert size == len(share([sequences[i] for i in bundle]).ids) <= budget


@given(st.lists(token_lists, min_size=1, max_size=6), st.integers(9, 40), st.integers(0, 5))
def test_packs_keep_problems_together(problems, budget, seed):
    """A problem that fits into a pack is in one pack; every solution is in exactly one; no pack is over budget."""
    sequences = [s for p in problems for s in p]
    groups = [g for g, p in enumerate(problems) for _ in p]
    packs = PrefixPacks(sequences, groups, budget)(np.random.default_rng(seed))
    assert sorted(i for pack in packs for i in pack) == list(range(len(sequences)))
    for pack in packs:
        of = {groups[i] for i in pack}
        assert sum(len(share([sequences[i] for i in pack if groups[i] == g]).ids) for g in of) <= budget
    for g, problem in enumerate(problems):
        if len(share(problem).ids) <= budget:
            assert sum(any(groups[i] == g for i in pack) for pack in packs) == 1
