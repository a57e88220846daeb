import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepverify.data.batch import Batch, collate
from stepverify.data.batching import BatchSampler, LengthBuckets
from stepverify.data.encode import Example
from stepverify.data.packing import PrefixPacks

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=120)


def by_tokens(lengths, budget):
    """Solutions of three problems in turn, that share what their lengths allow."""
    return PrefixPacks([list(range(n)) for n in lengths], [i % 3 for i in range(len(lengths))], budget)


def on_all_ranks(maker, lengths, num_ranks, *, epoch=0, weights=None, **options):
    weights = np.ones((len(lengths), 2)) if weights is None else weights
    plans = [
        BatchSampler(maker, lengths, weights, rank=rank, num_ranks=num_ranks, **options) for rank in range(num_ranks)
    ]
    for one in plans:
        one.set_epoch(epoch)
    return [list(one) for one in plans], [len(one) for one in plans]


def indices(plans):
    return [plan.indices for plan in plans]


@given(LENGTHS, st.integers(1, 20), st.integers(1, 8), st.booleans(), st.integers(0, 3), st.booleans())
def test_every_example_comes_once_an_epoch(lengths, batch_size, num_ranks, shuffle, epoch, pack):
    """Over all ranks; each rank gets as many batches, in every epoch, of at most ``batch_size``.

    Only batches of one cannot keep to it: 5 examples on 2 ranks are 2 + 2 batches, and one of them has two.
    """
    maker = by_tokens(lengths, 50 + batch_size) if pack else LengthBuckets(lengths, batch_size)
    if len(lengths) < num_ranks:
        with pytest.raises(ValueError, match=f"{len(lengths)} examples cannot be divided among {num_ranks} processes"):
            on_all_ranks(maker, lengths, num_ranks, shuffle=shuffle)
        return
    ranks, announced = on_all_ranks(maker, lengths, num_ranks, shuffle=shuffle, epoch=epoch)
    batches = [plan.indices for rank in ranks for plan in rank]
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert [len(rank) for rank in ranks] == announced == [len(ranks[0])] * num_ranks
    assert on_all_ranks(maker, lengths, num_ranks, shuffle=shuffle)[1] == announced
    assert min(map(len, batches)) >= 1
    if not pack:
        assert max(map(len, batches)) <= (2 if batch_size == 1 and len(lengths) % num_ranks else batch_size)
        assert len(ranks[0]) <= -(-len(lengths) // (batch_size * num_ranks))


def test_batches_by_hand():
    """Lengths 3 1 4 1 5 9 2, longest first: 9 at 5, 5 at 4, 4 at 2, 3 at 0, 2 at 6, then 1 at 1 and 3, in 3 batches.

    On two ranks there are 4 of them: the largest by examples is halved, and the ranks take turns by tokens.
    """
    lengths = [3, 1, 4, 1, 5, 9, 2]
    (plans,), _ = on_all_ranks(LengthBuckets(lengths, 3), lengths, 1, shuffle=False)
    assert indices(plans) == [[5, 4, 2], [0, 6], [1, 3]]
    ranks, _ = on_all_ranks(LengthBuckets(lengths, 3), lengths, 2, shuffle=False)
    assert [indices(plans) for plans in ranks] == [[[5, 4], [2]], [[0, 6], [1, 3]]]


@given(LENGTHS, st.integers(1, 20))
def test_the_longest_come_first_outside_training(lengths, batch_size):
    (plans,), _ = on_all_ranks(LengthBuckets(lengths, batch_size), lengths, 1, shuffle=False)
    tokens = [sum(lengths[i] for i in plan.indices) for plan in plans]
    assert tokens == sorted(tokens, reverse=True)


@given(LENGTHS, st.integers(1, 20), st.integers(0, 99), st.integers(0, 99), st.booleans())
def test_the_order_follows_from_seed_and_epoch(lengths, batch_size, seed, epoch, pack):
    """Whatever was sampled before: an interrupted epoch is continued by skipping."""
    maker = by_tokens(lengths, 50 + batch_size) if pack else LengthBuckets(lengths, batch_size)
    one, other = (BatchSampler(maker, lengths, np.ones((len(lengths), 2)), shuffle=True, seed=seed) for _ in range(2))
    one.set_epoch(epoch)
    first = list(one)
    list(other)
    other.set_epoch(epoch)
    assert list(other) == list(one) == first


def test_every_epoch_and_seed_has_its_own_order():
    lengths = list(range(1, 101))
    for maker in (LengthBuckets(lengths, 5), PrefixPacks([[i] * n for i, n in enumerate(lengths)], lengths, 300)):
        orders = set()
        for seed in range(3):
            for epoch in range(3):
                (plans,), _ = on_all_ranks(maker, lengths, 1, shuffle=True, seed=seed, epoch=epoch)
                orders.add(tuple(map(tuple, indices(plans))))
        assert len(orders) == 9
        plain = [
            on_all_ranks(maker, lengths, 1, shuffle=False, seed=s, epoch=e)[0] for s, e in ((0, 0), (1, 0), (0, 1))
        ]
        assert plain[0] == plain[1] == plain[2]


def test_neighbours_in_length_share_a_batch():
    """640 lengths of 1 to 400 in batches of 8: rows padded to the longest waste under 10 %; in file order over 40 %.

    And still the order is random: batches do not come sorted.
    """
    lengths = np.random.default_rng(0).integers(1, 401, 640)

    def waste(batches):
        return 1 - lengths.sum() / sum(lengths[batch].max() * len(batch) for batch in batches)

    (plans,), _ = on_all_ranks(LengthBuckets(lengths, 8), lengths, 1, shuffle=True)
    assert waste(indices(plans)) < 0.1
    assert waste(np.arange(640).reshape(80, 8)) > 0.4
    longest = [lengths[plan.indices].max() for plan in plans]
    assert sorted(longest) != longest != sorted(longest, reverse=True)


def test_ranks_compute_as_much_at_the_same_time():
    """200 packs of unlike sizes on 4 ranks: within each step they differ by less than the whole epoch does."""
    lengths = np.random.default_rng(0).integers(1, 400, 800)
    ranks, _ = on_all_ranks(LengthBuckets(lengths, 4), lengths, 4, shuffle=True)
    tokens = np.array([[lengths[plan.indices].sum() for plan in plans] for plans in ranks])
    assert np.ptp(tokens, axis=0).mean() < 0.05 * np.ptp(tokens)


@given(LENGTHS, st.integers(1, 4), st.integers(1, 4), st.data())
def test_every_position_weighs_the_same(lengths, num_ranks, accumulate, data):
    """Gradients are averaged over ranks and accumulated batches: Σ (weight / norm) / (ranks · accumulate) = 1 a step.

    However many batches the epoch's last step has.
    """
    if len(lengths) < num_ranks:
        return
    weights = np.array([[data.draw(st.floats(0.1, 9)), 1.0] for _ in lengths])
    ranks, _ = on_all_ranks(
        LengthBuckets(lengths, 3), lengths, num_ranks, shuffle=True, weights=weights, accumulate=accumulate
    )
    for at in range(0, len(ranks[0]), accumulate):
        window = [plan for plans in ranks for plan in plans[at : at + accumulate]]
        for kind in (0, 1):
            parts = [weights[plan.indices, kind].sum() / plan.loss_denominators[kind] for plan in window]
            assert sum(parts) / (num_ranks * accumulate) == pytest.approx(1)


def test_packing_wastes_little():
    """300 problems of 100 to 900 tokens in packs of 2,048: under 10 % more packs than tokens would need."""
    sizes = np.random.default_rng(0).integers(100, 900, 300)
    maker = PrefixPacks([[i] * n for i, n in enumerate(sizes)], list(range(300)), 2048)
    packs = maker(np.random.default_rng(1))
    assert len(packs) <= 1.1 * sizes.sum() / 2048


# ── batches ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def examples(make_solution):
    """Three tokens read at two places, and five read at one."""
    first, second = make_solution(sample=0), make_solution(sample=1)
    return [
        Example([7, 8, 9], [1, 2], [0.1, 1.0], first, [0, 1]),
        Example([4, 5, 6, 7, 8], [4], [0.0], second, [2, 3]),
    ]


def test_a_batch_is_one_row(examples):
    """In the order of ids, 4 5 6 7 8 | 7 8 9: position p of the first solution is 5 + p, of the second p."""
    batch = collate(examples)
    assert batch.input_ids.tolist() == [4, 5, 6, 7, 8, 7, 8, 9]
    assert batch.tree.depth.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert batch.tree.end.tolist() == [5] * 5 + [8] * 3
    assert batch.tree.rows.tolist() == [[5, 6, 7, 7, 7], [0, 1, 2, 3, 4]]
    assert batch.tree.origin.tolist() == [5, 6, 7, 8, 9, 0, 1, 2]
    assert batch.scored.index.tolist() == [4, 6, 7]
    assert torch.equal(batch.scored.targets, torch.tensor([0.0, 0.1, 1.0]))
    assert batch.scored.entries.tolist() == [1, 2, 0]
    assert batch.scored.owner.tolist() == [0, 0, 1]
    assert batch.lm.index.tolist() == [2, 3, 5, 6]
    assert batch.lm.targets.tolist() == [7, 8, 8, 9]
    assert batch.records == [example.record for example in examples]
    assert batch.num_tokens == 8


def test_padding_is_seen_by_nobody(examples):
    """8 tokens to a multiple of 6 are 12; the four after see themselves alone."""
    batch = collate(examples, pad_to=6)
    assert batch.input_ids.tolist()[8:] == batch.tree.depth.tolist()[8:] == [0] * 4
    assert batch.tree.end.tolist()[8:] == [9, 10, 11, 12]
    assert batch.scored.index.tolist() == collate(examples).scored.index.tolist()


def test_prediction_has_no_targets(make_solution):
    batch = collate([Example([7], [0], None, make_solution())])
    assert (batch.scored.targets, batch.lm) == (None, None)
    assert batch.scored.index.tolist() == [0]


def test_token_ids_as_targets_stay_exact(make_solution):
    """A vocabulary of 262,144 as Gemma's: the last id survives float32."""
    example = Example([1, 2], [0, 1], [262143.0, 150001.0], make_solution())
    assert collate([example]).scored.targets.long().tolist() == [262143, 150001]


def test_a_batch_moves_as_a_whole(examples):
    batch = collate(examples)
    moved = batch.to("meta")
    tensors = [getattr(part, name) for part in (moved.tree, moved.scored, moved.lm) for name in part.__slots__]
    assert {t.device.type for t in (moved.input_ids, *tensors) if isinstance(t, torch.Tensor)} == {"meta"}
    assert moved.records is batch.records
    assert isinstance(moved, Batch)
