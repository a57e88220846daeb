"""Attention along a tree by fused kernels equals the written-out one, in values and gradients, and stays fused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from stepverify.data import segments  # noqa: E402
from stepverify.data.batch import lay_out  # noqa: E402
from stepverify.data.segments import padded_groups, segments_of, suffixes_of  # noqa: E402
from stepverify.data.tree import apart, share  # noqa: E402
from stepverify.models.attention import attend, dense, pieces  # noqa: E402
from stepverify.models.attention.paths import paths  # noqa: E402
from tests.helpers.kernels import assert_fused, attention_inputs  # noqa: E402

# Few different tokens: prefixes are shared often, and of any length.
token_lists = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=14), min_size=1, max_size=9)
# What a call for a prefix is said to cost: nothing, as measured, or so much that there are none.
costs = st.sampled_from([0.0, 1.0, 1e9])
# What padding a causal call saves: nothing; as measured, which is something for these short ones; or as much as can be.
savings = st.sampled_from([0.0, 1.0, 1e9])


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield monkeypatch


def set_costs(patch, factor: float, saving: float = 1.0) -> None:
    for name, value in {"_PREFIX": 600.0, "_PREFIX_QUERY": 32.0, "_PREFIX_CELL": 0.4}.items():
        patch.setattr(segments, name, factor * value)
    patch.setattr(segments, "_CALL", saving * 75_000.0)
    pieces._plan.cache_clear()


def tree_of(sequences: list[list[int]], padding: int = 0):
    return lay_out(share(sequences), padding)


@given(sequences=token_lists, padding=st.integers(0, 20), factor=costs, shared=st.booleans())
def test_calls_show_each_token_its_path_once(patch, sequences, padding, factor, shared):
    """Count how often each call shows a token to another: once along paths, never elsewhere; every token is asked."""
    set_costs(patch, factor)
    forest = (share if shared else apart)(sequences)
    tree = lay_out(forest, padding)
    length = len(forest.ids) + padding
    place = np.arange(length)
    expected = ((place <= place[:, None]) & (place[:, None] < tree.end.numpy())).astype(int)
    expected[len(forest.ids) :, len(forest.ids) :] = 0  # nobody reads padding
    for prefixes in (True, False):
        made = segments_of(suffixes_of(forest, padding), prefixes=prefixes)
        seen, asked = np.zeros((length, length), int), np.zeros(length, int)
        for begin, end, start, stop, causal in made.calls:
            keys = made.keys[begin:end]
            if causal:
                assert keys[start - stop :].tolist() == list(range(start, stop))
                asked[start:stop] += 1
            for query in range(start, stop):
                seen[query, keys[: len(keys) - (stop - 1 - query) * causal]] += 1
        seen[len(forest.ids) :, len(forest.ids) :] = 0
        assert (seen == expected).all()
        assert (asked == 1).all()
        if factor == 0.0 and prefixes:  # nothing is computed twice
            assert len(made.keys) <= 2 * length


def test_a_prefix_of_three_by_hand(patch):
    """[0 0 1], [0 0 2], [0 0 3 4]: 0 0 1 | 2 | 3 4. Tokens 3 to 5 see 0 and 1 in one call, and themselves."""
    set_costs(patch, 0.0)
    made = segments_of(suffixes_of(share([[0, 0, 1], [0, 0, 2], [0, 0, 3, 4]])))
    assert made.keys.tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert made.calls.tolist() == [[0, 3, 0, 3, 1], [3, 4, 3, 4, 1], [4, 6, 4, 6, 1], [6, 8, 3, 6, 0]]


def test_a_prefix_gets_a_call_where_that_is_cheaper(patch):
    """16 solutions of 70 tokens after a prompt of 55 share it; two tokens that two solutions share are read twice."""
    set_costs(patch, 1.0)
    rng = np.random.default_rng(0)
    solutions = [[7] * 55 + rng.integers(8, 999, 70).tolist() for _ in range(16)]
    assert (segments_of(suffixes_of(share(solutions))).calls[:, 4] == 0).sum() == 1
    two = [[7] * 2 + rng.integers(8, 999, 70).tolist() for _ in range(2)]
    assert segments_of(suffixes_of(share(two))).calls[:, 4].all()


def brute_force(lengths: list[int], width: int) -> float:
    """Most that any division of the sorted lengths saves."""
    best = 0.0
    for cuts in range(2 ** (len(lengths) - 1)):
        borders = [0, *(i + 1 for i in range(len(lengths) - 1) if cuts >> i & 1), len(lengths)]
        parts = [lengths[i:j] for i, j in pairwise(borders)]
        best = max(best, sum(saved_by(part, width) for part in parts))
    return best


def saved_by(lengths: list[int], width: int) -> float:
    longest = lengths[0]
    if len(lengths) < 2 or len(lengths) * longest * width > 65_536:
        return 0.0 if len(lengths) < 2 else -1e9
    padding = sum(longest * (longest + 32) - n * (n + 32) for n in lengths) / 2
    return len(lengths) * (75_000 - 5 * longest * width) - width * padding - 180_000


@given(
    lengths=st.lists(st.integers(1, 120), min_size=1, max_size=9), width=st.sampled_from([16, 64, 256]),
    causal=st.lists(st.integers(0, 1), min_size=9, max_size=9),
)  # fmt: skip
def test_padded_groups_save_the_most(patch, lengths, width, causal):
    """Each call remains once, none without the causal mask is padded, and no other division of them saves more."""
    set_costs(patch, 1.0)
    calls = np.array([[i, i + n, 10 * i, 10 * i + 1, c] for i, (n, c) in enumerate(zip(lengths, causal, strict=False))])
    groups, alone = padded_groups(calls, width)
    assert sorted(np.concatenate([*groups, alone]).tolist()) == sorted(calls.tolist())
    assert all(group[:, 4].all() and len(group) > 1 for group in groups)
    found = sum(saved_by((group[:, 1] - group[:, 0]).tolist(), width) for group in groups)
    wanted = sorted((n for n, c in zip(lengths, causal, strict=False) if c), reverse=True)
    assert found == pytest.approx(brute_force(wanted, width) if wanted else 0.0)


def test_short_sequences_of_narrow_heads_share_calls_by_hand():
    """Eight of 30 tokens, 4 heads of 16: 8 · (75,000 - 5 · 30 · 64) - 180,000 saved. One of 120 would pad each of them
    by 64 · (120 · 152 - 30 · 62) / 2 = 524,160, more than a call's 75,000. 9 heads of 64 copy 5 · 30 · 576 = 86,400."""
    calls = np.array([[0, n, 0, n, 1] for n in [30] * 4 + [120] + [30] * 4])
    (group,), alone = padded_groups(calls, 4 * 16)
    assert group[:, 1].tolist() == [30] * 8
    assert alone[:, 1].tolist() == [120]
    assert padded_groups(calls, 9 * 64)[0] == []


def outcome(how, inputs, tree, weights, window):
    for x in inputs:
        x.grad = None
    out = how(*inputs, tree, 0.0, 0.3, window, None)
    (out * weights[: out.shape[2], None].T[..., None]).sum().backward()
    return [out.detach(), *(x.grad.clone() for x in inputs)]


@settings(max_examples=25, deadline=None)
@given(
    sequences=token_lists, padding=st.integers(0, 5), factor=costs, saving=savings, shared=st.booleans(),
    window=st.sampled_from([None, None, 1, 3, 5, 99]),
    heads=st.sampled_from([(2, 2), (4, 2), (3, 1)]), widths=st.sampled_from([(8, None), (6, None), (8, 4), (4, 8)]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)  # fmt: skip
def test_paths_equal_the_written_out_attention(
    patch, sequences, padding, factor, saving, shared, window, heads, widths, dtype
):
    """Any tree, window, grouping, widths of heads, and calls: values and gradients agree to rounding.

    Padding is not read. A second run gives equal bits.
    """
    set_costs(patch, factor, saving)
    tree = lay_out((share if shared else apart)(sequences), padding)
    used = len(tree.end) - padding
    inputs = attention_inputs(len(tree.end), *heads, widths[0], value_width=widths[1], dtype=dtype)
    weights = torch.linspace(-1, 1, used, dtype=dtype)
    weights = torch.cat([weights, weights.new_zeros(padding)])
    found, wanted = (outcome(how, inputs, tree, weights, window) for how in (paths, dense.eager))
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    for one, other in zip(found, wanted, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one[:, :, :used], other[:, :, :used], rtol=tolerance, atol=tolerance)
    again = outcome(paths, inputs, tree, weights, window)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


SEQUENCES = [[0, 0, 1, 2, 3, 4], [0, 0, 1, 2, 5], [0, 0, 6, 7, 8, 9, 1, 2, 3], [4, 5]]


@pytest.mark.parametrize("saving", [0.0, 1e9])
@pytest.mark.parametrize("window", [None, 3])
def test_half_precision_is_as_near_as_its_rounding(patch, window, saving):
    """bfloat16 has 8 bits: values of size 2 to 1/64, where a plain sum in float32 would have the same inputs."""
    set_costs(patch, 0.0, saving)
    tree = tree_of(SEQUENCES)
    halves = attention_inputs(len(tree.end), 4, 2, dtype=torch.bfloat16)
    exact = [x.detach().float().requires_grad_() for x in halves]
    weights = torch.linspace(-1, 1, len(tree.end))
    found, wanted = outcome(paths, halves, tree, weights, window), outcome(dense.eager, exact, tree, weights, window)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.float(), other, rtol=0.03, atol=0.03)


KERNEL = "aten::_scaled_dot_product_flash_attention_for_cpu"


@pytest.mark.parametrize(("saving", "calls"), [(0.0, 12), (1.0, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_short_sequences_share_a_call(patch, dtype, saving, calls):
    """Twelve sequences of 5 to 16 tokens that share nothing: twelve kernel calls, or one as the measured times advise.

    Both give the written-out attention's values and gradients, to rounding.
    """
    set_costs(patch, 1.0, saving)
    tree = lay_out(apart([list(range(n)) for n in (5, 16, 6, 15, 7, 14, 8, 13, 9, 12, 10, 11)]))
    inputs = attention_inputs(len(tree.end), 4, 2, dtype=dtype)
    weights = torch.linspace(-1, 1, len(tree.end))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        found = outcome(paths, inputs, tree, weights, None)
    counts = {event.key: event.count for event in profile.key_averages()}
    assert (counts[KERNEL], counts[f"{KERNEL}_backward"]) == (calls, calls)
    wanted = outcome(dense.eager, [x.detach().float().requires_grad_() for x in inputs], tree, weights, None)
    tolerance = 0.03 if dtype == torch.bfloat16 else 1e-5  # of the largest value
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=0, atol=tolerance * other.abs().max().item())


def test_no_value_reaches_another_sequence_of_its_call(patch):
    """A NaN in the second of three sequences stays there, in values and gradients."""
    set_costs(patch, 0.0, 1e9)
    tree = lay_out(apart([[1, 2], [3, 4, 5, 6], [7, 8, 9]]))
    inputs = [x.detach().clone() for x in attention_inputs(9, 2, 2)]
    for x in inputs:
        x[:, :, 2:6] = float("nan")
    for result in outcome(paths, [x.requires_grad_() for x in inputs], tree, torch.ones(9), None):
        assert result.isnan().any(3).any(1)[0].tolist() == [False] * 2 + [True] * 4 + [False] * 3


def test_autocast_and_gradient_checkpointing(patch):
    """Autocast rounds what comes in, mixed formats too; recomputed activations give equal gradients."""
    set_costs(patch, 0.0)
    tree = tree_of(SEQUENCES)
    query, key, value = attention_inputs(len(tree.end), 4, 2, dtype=torch.float32)
    plain = outcome(paths, [query, key, value], tree, torch.ones(len(tree.end)), None)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = paths(query, key, value.bfloat16(), tree, 0.0, 0.3, None, None)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), plain[0], rtol=0.03, atol=0.03)

    def recomputed(*given):
        return torch.utils.checkpoint.checkpoint(paths, *given, use_reentrant=False)

    again = outcome(recomputed, [query, key, value], tree, torch.ones(len(tree.end)), None)
    assert all(torch.equal(one, other) for one, other in zip(again, plain, strict=True))


@pytest.mark.parametrize("how", ["paths", "sdpa"])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_heads_and_windows_reach_a_fused_kernel(how, window, dtype):
    tree = tree_of(SEQUENCES)
    inputs = attention_inputs(len(tree.end), 4, 2, dtype=dtype)
    assert_fused(how, tree, inputs, sliding_window=window)


def test_the_unfused_kernel_would_be_noticed():
    tree = tree_of(SEQUENCES)
    with pytest.raises(AssertionError, match="softmax"):
        assert_fused("eager", tree, attention_inputs(len(tree.end), 4, 2))


def test_dropped_weights_are_those_that_are_seen():
    """Values of 1 give the sum of a token's weights: 1 without dropout; dropping half of them, 1 on average.

    The first token of a path sees itself alone: 0 or 2. Gradients are those of the weights that are kept.
    """
    tree = tree_of(SEQUENCES)
    query, key, value = attention_inputs(len(tree.end), 4, 2)
    ones = torch.ones_like(value).requires_grad_()
    assert torch.allclose(attend(None, query, key, ones, None, tree=tree, how=paths)[0], torch.ones(1).to(value))
    torch.manual_seed(0)
    outs = torch.stack([attend(None, query, key, ones, None, 0.5, tree=tree, how=paths)[0] for _ in range(400)])
    assert set(outs[:, 0, tree.depth == 0].unique().tolist()) == {0.0, 2.0}
    assert (outs.mean(0) - 1).abs().max() < 0.25, "five deviations of 1 / sqrt(400)"
    (gradient,) = torch.autograd.grad(outs[0].sum(), ones)
    assert torch.allclose(gradient.sum(), outs[0].sum())
