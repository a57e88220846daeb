"""Tables of examples: any example comes back as it was, in any process."""

from __future__ import annotations

import multiprocessing
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepverify.data.arrays import in_use
from stepverify.data.encode import Example
from stepverify.data.packing import PrefixPacks, count_once
from stepverify.data.prepare import ClassWeights, weigh
from stepverify.data.store import ExampleStore
from stepverify.data.table import ExampleTable, TableWriter
from stepverify.records import InputError, Solution, StepLabel
from tests.helpers.stores import example, read_into, store_of, table_of

numbers = st.floats(allow_nan=False)


labels = st.one_of(
    st.none(), st.builds(StepLabel, rating=st.sampled_from([-1, 0, 1])), st.builds(StepLabel, value=st.floats(0, 1))
)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | numbers | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def any_example(draw):
    name, steps = draw(st.sampled_from("pqr")), draw(st.lists(st.text(max_size=5), max_size=3))
    record = Solution(
        id=f"{name}#{draw(st.integers())}", problem_id=name, problem=f"{name}?", steps=steps,
        step_labels=draw(st.none() | st.lists(labels, min_size=len(steps), max_size=len(steps))),
        finish=draw(st.sampled_from([None, "stop", "length"])), seed=draw(st.none() | st.integers(0, 2**62)),
        meta=draw(st.dictionaries(st.text(max_size=3), plain, max_size=2)),
        token_ids=draw(st.none() | st.lists(st.integers(0, 9), max_size=3)),
    )  # fmt: skip
    ids = draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6))
    places = st.lists(st.integers(0, len(ids) - 1), unique=True, max_size=4).map(sorted)
    positions, lm = draw(places), draw(places)
    each, lm_each = (st.lists(numbers, min_size=len(p), max_size=len(p)) for p in (positions, lm))
    return Example(
        ids, positions, draw(st.none() | each), record, lm, draw(st.none() | each), draw(st.none() | lm_each)
    )


@given(st.lists(any_example(), max_size=5))
def test_any_example_comes_back_as_it_was(wanted):
    """Every column, None and empty told apart; weights are sums of floats in the same order."""
    store = store_of(*wanted)
    assert len(store) == len(wanted)
    assert list(store) == store[:] == [store[i - len(wanted)] for i in range(len(wanted))] == wanted
    assert [*store.sequences] == [e.input_ids for e in wanted]
    assert store.lengths.tolist() == [len(e.input_ids) for e in wanted]
    assert [tuple(w) for w in store.weights.tolist()] == [pytest.approx(e.weight(), nan_ok=True) for e in wanted]
    assert all((store.groups[i] == store.groups[j]) == (a.record.problem_id == b.record.problem_id)
               for i, a in enumerate(wanted) for j, b in enumerate(wanted))  # fmt: skip
    assert [*store.digests.values()] == [*dict.fromkeys(e.record.problem_id for e in wanted)]


def test_more_examples_than_are_written_at_once():
    wanted = [example(i, tokens=1 + i % 5, problem=f"p{i % 7}") for i in range(1300)]
    store = store_of(*wanted)
    assert list(store) == wanted
    store.table.check()


def test_a_record_that_no_file_takes(tmp_path):
    e = example(3)
    e.record.meta = {"when": object()}
    with pytest.raises(InputError, match=r"^solution p#3: cannot be kept on disk: .*object.*; `meta` takes JSON"):
        TableWriter(tmp_path).add(e)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_reads_the_same_files(method):
    """Weights that are computed too; and a worker's end takes nothing away."""
    store = store_of(example(0, targets=[1.0, 0.0]), example(1, targets=[0.0]))
    count_once(store)
    weigh(store, ClassWeights(incorrect=3.0))
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    worker = context.Process(target=read_into, args=(store, queue))
    worker.start()
    assert queue.get(timeout=60) == (list(store), [*store.sequences], store.weights.tolist())
    worker.join()
    assert list(pickle.loads(pickle.dumps(store))) == list(store)


def test_a_table_is_in_use_until_it_is_gone():
    """Its folder goes with it where it is temporary."""
    table = table_of(example(0))
    folder = table.folder
    assert in_use(folder)
    store = ExampleStore(table)
    del table
    assert list(store) == [example(0)]
    del store
    assert not folder.exists()
    assert not in_use(folder)


def test_memory_does_not_hold_the_tokens():
    """5,000 examples of 300 tokens and targets: 24 MB on disk. An entry costs 16 bytes of numpy arrays, and 16 more
    once weights are asked for."""
    targets = [1.0] * 300
    table = table_of(*(example(0, tokens=300, targets=targets) for _ in range(5_000)))
    tracemalloc.start()
    store = ExampleStore(ExampleTable(table.folder))
    assert store.weights[:, 0].tolist() == [300.0] * len(store)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < len(store) * 48 + 50_000, "the columns' headers and the index come on top"
    assert table.size() > len(store) * 300 * (4 + 4 + 8)


def test_packs_are_made_from_a_store():
    store = store_of(*(example(i % 3, 4, problem=f"p{i % 2}") for i in range(12)))
    packs = PrefixPacks(store.sequences, store.groups.tolist(), 12)(np.random.default_rng(0))
    assert sorted(i for pack in packs for i in pack) == list(range(12))
