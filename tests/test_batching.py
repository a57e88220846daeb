import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepverify.data.batch import Batch, collate
from stepverify.data.batching import LengthBatches
from stepverify.data.encode import Example

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=120)


def on_all_ranks(lengths, batch_size, world_size, *, epoch=0, **options):
    samplers = [
        LengthBatches(lengths, batch_size, rank=rank, world_size=world_size, **options) for rank in range(world_size)
    ]
    for sampler in samplers:
        sampler.sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers], [len(sampler) for sampler in samplers]


@given(LENGTHS, st.integers(1, 20), st.integers(1, 8), st.booleans(), st.integers(0, 3))
def test_every_example_comes_once_an_epoch(lengths, batch_size, world_size, shuffle, epoch):
    """Over all ranks; each rank gets as many batches, of at most ``batch_size``.

    Only batches of one cannot keep to it: 5 examples on 2 ranks are 2 + 2 batches, and one of them has two.
    """
    if len(lengths) < world_size:
        with pytest.raises(ValueError, match=f"{len(lengths)} examples cannot be divided among {world_size} processes"):
            on_all_ranks(lengths, batch_size, world_size, shuffle=shuffle)
        return
    ranks, announced = on_all_ranks(lengths, batch_size, world_size, shuffle=shuffle, epoch=epoch)
    batches = [batch for rank in ranks for batch in rank]
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert [len(rank) for rank in ranks] == announced == [len(ranks[0])] * world_size
    sizes = [len(batch) for batch in batches]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= (2 if batch_size == 1 and len(lengths) % world_size else batch_size)
    assert len(ranks[0]) <= -(-len(lengths) // (batch_size * world_size))


def test_batches_by_hand():
    """Lengths 3 1 4 1 5 9 2, longest first: 9 at 5, 5 at 4, 4 at 2, 3 at 0, 2 at 6, then 1 at 1 and 3, in 3 batches.

    On two ranks there are 4 of them, of 2, 2, 2 and 1; the ranks take turns.
    """
    lengths = [3, 1, 4, 1, 5, 9, 2]
    assert list(LengthBatches(lengths, 3, shuffle=False)) == [[5, 4, 2], [0, 6], [1, 3]]
    ranks, _ = on_all_ranks(lengths, 3, 2, shuffle=False)
    assert ranks == [[[5, 4], [6, 1]], [[2, 0], [3]]]


@given(LENGTHS, st.integers(1, 20))
def test_the_longest_come_first_outside_training(lengths, batch_size):
    order = [i for batch in LengthBatches(lengths, batch_size, shuffle=False) for i in batch]
    assert [lengths[i] for i in order] == sorted(lengths, reverse=True)


@given(LENGTHS, st.integers(1, 20), st.integers(0, 99), st.integers(0, 99))
def test_the_order_follows_from_seed_and_epoch(lengths, batch_size, seed, epoch):
    """Whatever was drawn before: an interrupted epoch is continued by skipping."""
    one, other = (LengthBatches(lengths, batch_size, shuffle=True, seed=seed) for _ in range(2))
    one.set_epoch(epoch)
    first = list(one)
    list(other)
    other.set_epoch(epoch)
    assert list(other) == list(one) == first


def test_every_epoch_and_seed_has_its_own_order():
    lengths = list(range(1, 101))
    orders = set()
    for seed in range(3):
        for epoch in range(3):
            (batches,), _ = on_all_ranks(lengths, 5, 1, shuffle=True, seed=seed, epoch=epoch)
            orders.add(tuple(map(tuple, batches)))
    assert len(orders) == 9
    plain = [on_all_ranks(lengths, 5, 1, shuffle=False, seed=s, epoch=e)[0] for s, e in ((0, 0), (1, 0), (0, 1))]
    assert plain[0] == plain[1] == plain[2]


def test_neighbours_in_length_share_a_batch():
    """640 lengths of 1 to 400 in batches of 8: padding wastes under 10 % of the tokens; in file order it is over 40 %.

    And still the order is random: batches do not come sorted.
    """
    lengths = np.random.default_rng(0).integers(1, 401, 640)

    def waste(batches):
        return 1 - lengths.sum() / sum(lengths[batch].max() * len(batch) for batch in batches)

    batches = list(LengthBatches(lengths, 8, shuffle=True))
    assert waste(batches) < 0.1
    assert waste(np.arange(640).reshape(80, 8)) > 0.4
    longest = [lengths[batch].max() for batch in batches]
    assert sorted(longest) != longest != sorted(longest, reverse=True)


# ── padding ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def examples(make_solution):
    """Three tokens read at two places, and five read at one."""
    first, second = make_solution(sample=0), make_solution(sample=1)
    return [
        Example([7, 8, 9], [1, 2], [0.1, 1.0], first, [0, 1]),
        Example([4, 5, 6, 7, 8], [4], [0.0], second, [2, 3]),
    ]


def test_a_batch_is_padded_on_the_right(examples):
    """Rows of 5: position p of row r is r · 5 + p, so row 1 is read at 9; language positions 0, 1, 7 and 8 there."""
    batch = collate(examples, pad_id=2)
    assert batch.input_ids.tolist() == [[7, 8, 9, 2, 2], [4, 5, 6, 7, 8]]
    assert batch.attention_mask.tolist() == [[True, True, True, False, False], [True] * 5]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert batch.index.tolist() == [1, 2, 9]
    assert batch.owner.tolist() == [0, 0, 1]
    assert batch.records == [example.record for example in examples]
    assert torch.equal(batch.targets, torch.tensor([0.1, 1.0, 0.0]))
    assert (batch.input_ids.dtype, batch.attention_mask.dtype, batch.targets.dtype) == (
        torch.int64, torch.bool, torch.float32,
    )  # fmt: skip
    assert batch.input_ids.flatten()[batch.index].tolist() == [8, 9, 8]
    assert batch.lm_index.tolist() == [0, 1, 7, 8]
    assert batch.lm_targets.tolist() == [8, 9, 7, 8]
    assert collate(examples, pad_id=0).input_ids.tolist()[0] == [7, 8, 9, 0, 0]


def test_prediction_has_no_targets(make_solution):
    batch = collate([Example([7], [0], None, make_solution())], pad_id=0)
    assert (batch.targets, batch.lm_index, batch.lm_targets) == (None, None, None)
    assert batch.index.tolist() == [0]


def test_token_ids_as_targets_stay_exact(make_solution):
    """A vocabulary of 262,144 as Gemma's: the last id survives float32."""
    example = Example([1, 2], [0, 1], [262143.0, 150001.0], make_solution())
    assert collate([example], pad_id=0).targets.long().tolist() == [262143, 150001]


def test_values_go_back_to_their_records(examples, make_solution):
    """Positions 0 and 1 belong to record 0, 2 to record 1, 3 to 5 to record 2: the last ones are 1, 2 and 5."""
    batch = collate([*examples, Example([1, 2, 3, 4], [1, 2, 3], [1.0] * 3, make_solution(sample=2))], pad_id=0)
    assert batch.last().tolist() == [1, 2, 5]
    values = torch.tensor([0.5, 0.25, 1.0, 0.0, 0.75, 0.125])
    assert batch.split(values) == [[0.5, 0.25], [1.0], [0.0, 0.75, 0.125]]
    assert batch.split(values.bfloat16()) == batch.split(values)
    assert values[batch.last()].tolist() == [v[-1] for v in batch.split(values)]


def test_a_batch_moves_as_a_whole(examples):
    batch = collate(examples, pad_id=0)
    moved = batch.to("meta")
    names = ("input_ids", "attention_mask", "position_ids", "index", "targets", "owner", "lm_index", "lm_targets")
    assert {getattr(moved, name).device.type for name in names} == {"meta"}
    assert moved.records is batch.records
    assert isinstance(moved, Batch)
