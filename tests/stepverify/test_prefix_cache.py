"""The radix tree of cached prefixes: longest matches, what it holds, and the bound of its size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from stepverify.prefix_cache import PrefixCache  # noqa: E402

WIDTH = 3
BYTES = 4 * (WIDTH + 1)  # of a token: three numbers and a score in float32
sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12)


def states_of(ids):
    """Numbers that tell each path from every other one, and its score."""
    numbers = [float(sum(3**i * (t + 1) for i, t in enumerate(ids[: at + 1]))) for at in range(len(ids))]
    return torch.tensor([[n, -n, n / 2] for n in numbers]), torch.tensor(numbers)


def add(cache, ids):
    """Add what is not known yet, as scoring does, among rows of something else."""
    first = sum(count for _, count in cache.find(ids))
    states, scores = (torch.cat([x[first:].flip(0), x[:1]]) for x in states_of(ids))
    rows = torch.arange(len(ids) - first).flip(0)
    cache.add(ids, first, rows, states, scores)


def found(cache, ids):
    """States and scores of the known prefix, and its length."""
    path = cache.find(ids)
    empty = torch.empty(0, WIDTH), torch.empty(0)
    states = torch.cat([empty[0], *(node.states[:count] for node, count in path)])
    return states, torch.cat([empty[1], *(node.scores[:count] for node, count in path)])


def common(one, other):
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@given(added=sequences, asked=sequences, most=st.sampled_from([1 << 20, 20 * BYTES, 5 * BYTES]))
def test_a_path_is_found_to_its_last_known_token(added, asked, most):
    """Without eviction exactly the longest common prefix with any added path; with it less, but never a wrong state.

    Tokens in the tree and dropped ones are all that were added, and the size is that of those in the tree.
    """
    cache = PrefixCache(most)
    new = 0
    for ids in added:
        new += len(ids) - len(found(cache, ids)[0])
        add(cache, ids)
        assert cache.num_bytes == cache.num_tokens * BYTES <= most
        assert cache.num_tokens + cache.evicted_tokens == new
    for ids in [*added, *asked]:
        states, scores = found(cache, ids)
        longest = max(common(ids, one) for one in added)
        assert len(states) == longest if most == 1 << 20 else len(states) <= longest
        wanted = states_of(ids)
        assert torch.equal(states, wanted[0][: len(states)])
        assert torch.equal(scores, wanted[1][: len(states)])


def test_the_least_recently_used_end_goes_first():
    """Room for 7 tokens. [1 2 3 4], [1 2 5] and [1 2 6 7] have 7; using [1 2 3 4] again and adding [1 2 8] drops the 5."""
    cache = PrefixCache(7 * BYTES)
    for ids in ([1, 2, 3, 4], [1, 2, 5], [1, 2, 6, 7], [1, 2, 3, 4]):
        add(cache, ids)
    assert (cache.num_tokens, cache.evicted_tokens) == (7, 0)
    add(cache, [1, 2, 8])
    lengths = {ids: len(found(cache, [*ids])[0]) for ids in ((1, 2, 5), (1, 2, 6, 7), (1, 2, 3, 4), (1, 2, 8))}
    assert lengths == {(1, 2, 5): 2, (1, 2, 6, 7): 4, (1, 2, 3, 4): 4, (1, 2, 8): 3}
    assert (cache.num_tokens, cache.evicted_tokens) == (7, 1)


def test_a_path_whose_beginning_was_dropped_is_not_added():
    """Its first two tokens were known when it was computed, and dropped before it was added."""
    cache = PrefixCache(4 * BYTES)
    add(cache, [1, 2])
    add(cache, [3, 4, 5])
    assert not cache.find([1, 2])
    cache.add([1, 2, 6], 2, torch.tensor([0]), torch.ones(1, WIDTH), torch.ones(1))
    assert not cache.find([1, 2, 6])
    assert (cache.num_tokens, cache.evicted_tokens) == (3, 2)


def test_dropped_tokens_free_their_memory():
    """A split part and what was left of it hold numbers of their own, not a view of the whole."""
    cache = PrefixCache(1 << 20)
    add(cache, [1, 2, 3, 4])
    add(cache, [1, 2, 5])
    for node, count in [*cache.find([1, 2, 3, 4]), *cache.find([1, 2, 5])]:
        assert len(node.ids) == count
        assert node.states.untyped_storage().nbytes() == count * WIDTH * 4
        assert node.scores.untyped_storage().nbytes() == count * 4
