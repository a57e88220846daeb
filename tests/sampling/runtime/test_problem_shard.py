"""Shards divide problems by their ids alone; compact sets of ids behave as sets."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampling.runtime.problem_shard import ProblemShard, shard_number
from stepverify.keys import KeyNumbers, KeySet
from stepverify.readers.base import in_fold
from stepverify.records import InputError

IDS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), unique=True)


@given(ids=IDS, of=st.integers(1, 50), order=st.randoms())
def test_shards_are_disjoint_complete_and_independent_of_order(ids, of, order):
    shards = [ProblemShard(number, of) for number in range(1, of + 1)]
    found = [[problem for problem in ids if problem in shard] for shard in shards]
    assert Counter(problem for part in found for problem in part) == Counter(ids), "each in exactly one"
    mixed = order.sample(ids, len(ids))
    assert [{problem for problem in mixed if problem in shard} for shard in shards] == [set(part) for part in found]


@pytest.mark.parametrize("of", [2, 3, 16, 61])
def test_shards_are_balanced_within_chance(of):
    """Of 6,000 ids, sizes are multinomial: chi square has a mean of n - 1 and a variance of 2 (n - 1); within 4 sigma."""
    sizes = Counter(shard_number(f"gsm8k/train/{i}", of) for i in range(6000))
    mean = 6000 / of
    chi_square = sum((sizes[number] - mean) ** 2 / mean for number in range(1, of + 1))
    assert abs(chi_square - (of - 1)) < 4 * (2 * (of - 1)) ** 0.5


def test_a_shard_is_no_validation_fold():
    """A tenth of the problems validates: 100 of 1,000 on average, and a tenth of these are in each of ten shards."""
    fold = [i for i in map(str, range(1000)) if in_fold(i, "validation", 0.1)]
    assert max(Counter(shard_number(i, 10) for i in fold).values()) < 30


def test_the_hash_stays():
    """Shards of two versions of this program must fit together."""
    assert [shard_number(f"p/{i}", 4) for i in range(8)] == [4, 4, 1, 3, 1, 1, 4, 2]


@pytest.mark.parametrize(
    "text", ["0/4", "5/4", "a/b", "1/0", "", "1", "1/", "/4", "-1/4", "1/4/2", "1.0/4", " 1/4", "٣/4"]
)
def test_other_values_are_refused(text):
    with pytest.raises(InputError, match=r"^shard: .*: expected i/n with i from 1 to n, as 1/4$"):
        ProblemShard.parse(text)


def test_good_values_are_read():
    assert ProblemShard.parse("2/4") == ProblemShard(2, 4)
    assert ProblemShard.parse("2/4").config() == {"shard": "2/4"}
    for whole in (None, "1/1"):
        assert ProblemShard.parse(whole).config() == {}
        assert "any" in ProblemShard.parse(whole)


# ── sets of ids ───────────────────────────────────────────────────────────────────────────────────


@given(ids=st.lists(st.text(st.characters(codec="utf-8"), max_size=3)))
def test_keys_are_a_set_and_are_numbered_in_order(ids):
    keys, numbers, seen = KeySet(), KeyNumbers(), {}
    for key in ids:
        assert (key in keys) == (key in seen)
        assert keys.add(key) == (key not in seen)
        assert numbers.number(key) == seen.setdefault(key, len(seen))
    assert (len(keys), len(numbers)) == (len(seen), len(seen))
    assert keys == set(seen)
    assert keys != {*seen, "another one"}


def test_many_keys_share_buckets():
    """50,000 keys in 16,384 buckets: three each on average, and none is taken for another."""
    keys, numbers = KeySet(map(str, range(50_000))), KeyNumbers()
    assert len(keys) == 50_000
    assert not any(str(i) in keys for i in range(50_000, 100_000))
    assert [numbers.number(str(i)) for i in range(50_000)] == list(range(50_000))
    assert [numbers.number(str(i)) for i in range(50_000)] == list(range(50_000))
