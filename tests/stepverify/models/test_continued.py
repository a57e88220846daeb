"""Attention of new tokens over cached ones: every token sees its path once, by every implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from stepverify.data.batch import lay_out  # noqa: E402
from stepverify.data.continued import Piece, continued  # noqa: E402
from stepverify.data.tree import common_prefix, share  # noqa: E402
from stepverify.models.attention import attend, dense  # noqa: E402
from stepverify.models.attention.paths import paths  # noqa: E402
from tests.helpers.kernels import attention_inputs  # noqa: E402
from tests.helpers.stores import examples_of  # noqa: E402

token_lists = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=10), min_size=1, max_size=7)


def cached_of(sequences, known):
    """Tokens of each sequence's longest common prefix with a known one."""
    return [max((common_prefix(one, s) for one in known), default=0) for s in sequences]


def tokens_of(made, sequences):
    """Path that each key stands for."""
    return {
        int(k): tuple(s[: at + 1]) for s, path in zip(sequences, made.paths, strict=True) for at, k in enumerate(path)
    }


@given(sequences=token_lists, known=token_lists)
def test_calls_show_each_new_token_its_path_once(sequences, known):
    """Queries are new tokens, each asked once in a causal call whose keys end with it; pieces name each cached one once."""
    cached = cached_of(sequences, known)
    made = continued(examples_of(sequences), cached)
    tree, new = made.batch.tree, len(made.batch.input_ids)
    names = tokens_of(made, sequences)
    old = [tuple(sequences[i][: at + 1]) for i, begin, end in made.pieces for at in range(begin, end)]
    assert [names[new + i] for i in range(len(old))] == old
    assert len(names) == len({*names.values()}) == new + len(old)
    assert {*old} == {tuple(s[:n]) for s, count in zip(sequences, cached, strict=True) for n in range(1, count + 1)}
    assert tree.depth.tolist() == [len(names[i]) - 1 for i in range(new)]
    assert made.batch.input_ids.tolist() == [names[i][-1] for i in range(new)]
    wanted = [[names[k] == names[q][: len(names[k])] for k in range(len(names))] for q in range(new)]
    for calls in (tree.segments, tree.suffixes):
        seen, asked = np.zeros((new, len(names)), int), np.zeros(new, int)
        for begin, end, start, stop, causal in calls.calls.tolist():
            keys = calls.keys[begin:end].numpy()
            if causal:
                assert keys[start - stop :].tolist() == list(range(start, stop))
                assert calls is tree.suffixes or (keys < new).all(), "a kernel's causal call has queries for its keys"
                asked[start:stop] += 1
            for query in range(start, stop):
                seen[query, keys[: len(keys) - (stop - 1 - query) * causal]] += 1
        assert seen.tolist() == np.array(wanted, int).reshape(new, len(names)).tolist()
        assert (asked == 1).all()
    starts = np.pad(tree.suffixes.calls.numpy()[:, [1, 3]], ((1, 0), (0, 0)))  # a ragged call takes ends alone
    assert (starts[:-1] == tree.suffixes.calls.numpy()[:, [0, 2]]).all()


def test_new_tokens_after_a_cached_prompt_by_hand():
    """[7 7 1 2], [7 7 1 3] and [7 7 4] after 7 7: tokens 1 2 | 3 | 4 are keys 0 to 3, the prompt keys 4 and 5, in one call.

    The third reads 1 of the first, by a causal call of both.
    """
    made = continued(examples_of([[7, 7, 1, 2], [7, 7, 1, 3], [7, 7, 4]]), [2, 2, 2])
    assert made.pieces == [Piece(0, 0, 2)]
    assert [path.tolist() for path in made.paths] == [[4, 5, 0, 1], [4, 5, 0, 2], [4, 5, 3]]
    assert made.batch.input_ids.tolist() == [1, 2, 3, 4]
    assert made.batch.num_tokens == 11
    calls = [
        (made.batch.tree.segments.keys[a:b].tolist(), *rest) for a, b, *rest in made.batch.tree.segments.calls.tolist()
    ]
    assert calls == [([0, 1], 0, 2, 1), ([0, 2], 2, 3, 1), ([3], 3, 4, 1), ([4, 5], 0, 4, 0)]


class Earlier:
    """Keys and values of the cached tokens."""

    def __init__(self, key, value):
        self.size, self.parts = key.shape[2], (key, value)

    def join(self, key, value):
        return tuple(torch.cat(pair, dim=2) for pair in zip((key, value), self.parts, strict=True))


@settings(max_examples=25, deadline=None)
@given(
    sequences=token_lists, known=token_lists, window=st.sampled_from([None, None, 1, 3, 99]),
    softcap=st.sampled_from([None, None, 2.0]), how=st.sampled_from([paths, dense.sdpa, dense.eager, dense.flex]),
    heads=st.sampled_from([(2, 2), (4, 2)]),
)  # fmt: skip
def test_outputs_are_those_of_the_whole_tree(sequences, known, window, softcap, how, heads):
    """In double precision; FlexAttention, whose mask is of whole trees, leaves it to another implementation."""
    made = continued(examples_of(sequences), cached_of(sequences, known))
    tree, new = made.batch.tree, len(made.batch.input_ids)
    if not new:
        return
    forest = share(sequences)
    place = np.zeros(len(forest.ids), int)  # key → token of the whole tree
    for path, whole in zip(made.paths, forest.paths, strict=True):
        place[path] = whole
    options = {"scaling": 0.3, "sliding_window": window, "softcap": softcap}
    inputs = [x.detach() for x in attention_inputs(len(forest.ids), *heads)]
    wanted, _ = attend(None, *inputs, None, tree=lay_out(forest), how=dense.eager, **options)
    query, key, value = (x[:, :, place] for x in inputs)
    tree.past = Earlier(key[:, :, new:], value[:, :, new:])
    found, _ = attend(None, *(x[:, :, :new] for x in (query, key, value)), None, tree=tree, how=how, **options)
    torch.testing.assert_close(found, wanted[:, place[:new]], rtol=1e-12, atol=1e-12)
