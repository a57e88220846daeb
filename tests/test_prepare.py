"""Examples on disk, and what is done to all of them before they are divided into batches."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepverify.data.encode import Example, LeftOut
from stepverify.data.packing import PrefixPacks
from stepverify.data.prepare import ClassWeights, add_lm_examples, encode_all, weigh
from stepverify.data.shelf import Shelf
from stepverify.readers import Reader
from stepverify.records import InputError, Solution


def example(
    number: int, tokens: int = 3, targets: list[float] | None = None, problem: str = "p", lm: int = 0
) -> Example:
    record = Solution(id=f"{problem}#{number}", problem_id=problem, problem="?", steps=["1"])
    targets = [1.0] if targets is None else targets
    return Example([number] * tokens, list(range(len(targets))), targets, record, list(range(lm)))


def shelf_of(*examples: Example) -> Shelf:
    shelf = Shelf()
    for e in examples:
        shelf.append(e)
    return shelf


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from("pqr"), st.lists(st.sampled_from([0.0, 1.0]), max_size=3)),
        max_size=8,
    )
)
def test_a_shelf_is_a_list(made):
    wanted = [example(i, n, targets, problem) for i, (n, problem, targets) in enumerate(made)]
    shelf = shelf_of(*wanted)
    assert len(shelf) == len(wanted)
    assert list(shelf) == shelf[:] == wanted
    assert shelf.lengths.tolist() == [len(e.input_ids) for e in wanted]
    assert [tuple(w) for w in shelf.weights.tolist()] == [e.weight() for e in wanted]
    assert all((shelf.groups[i] == shelf.groups[j]) == (a.record.problem_id == b.record.problem_id)
               for i, a in enumerate(wanted) for j, b in enumerate(wanted))  # fmt: skip


def test_entries_are_replaced_and_repeated():
    shelf = shelf_of(example(0), example(1, problem="q"))
    shelf.repeat(1, 2)
    shelf[1] = example(7, tokens=5, targets=[0.0, 0.0])
    assert [e.input_ids[0] for e in shelf] == [0, 7, 1, 1]
    assert shelf.lengths.tolist() == [3, 5, 3, 3]
    assert shelf.groups.tolist() == [0, 1, 1, 1]
    assert shelf.weights[:, 0].tolist() == [1, 2, 1, 1]


def test_another_process_reads_the_same_file():
    shelf = shelf_of(example(0), example(1))
    assert list(pickle.loads(pickle.dumps(shelf))) == list(shelf)


def test_memory_does_not_hold_the_tokens():
    """10,000 examples of 300 tokens: 44 bytes each and what the columns grow ahead, not the 24 MB of the tokens."""
    shelf = Shelf()
    e = example(1, tokens=300)
    shelf.append(e)
    tracemalloc.start()
    for _ in range(10_000):
        shelf.append(e)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 10_000 * 60


def test_packs_are_made_from_a_shelf():
    shelf = shelf_of(*(example(i % 3, 4, problem=f"p{i % 2}") for i in range(12)))
    packs = PrefixPacks([e.input_ids for e in shelf], shelf.groups.tolist(), 12)(np.random.default_rng(0))
    assert sorted(i for pack in packs for i in pack) == list(range(12))


class Counting(Reader):
    """Four solutions, of which the reader leaves one out and notes another; the encoder leaves out a third."""

    def problems(self):
        yield from ()

    def solutions(self):
        self.left_out.note("of excluded problems", "f:1")
        self.noted.note("empty steps", "f:2: step 0")
        for number in (1, 2, 3):
            yield example(number).record


def test_what_is_left_out_is_told_with_an_example(caplog):
    def encode(record):
        if record.id == "p#3":
            raise LeftOut("too long")
        return example(1)

    with caplog.at_level("INFO"):
        shelf = encode_all(Counting(), encode, "fit")
    assert caplog.messages[-1] == (
        "fit: 2 of 4 solutions, 6 tokens; left out: 1 too long (p#3), 1 of excluded problems (f:1); "
        "noted: 1 empty steps (f:2: step 0)"
    )
    assert shelf.left_out == {"too long": 1, "of excluded problems": 1}


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.25, 0.5, 1.0, 2.0]), st.integers(0, 3))
def test_language_is_mixed_in_at_its_ratio(labelled, references, ratio, seed):
    """round(ratio · labelled) in all, but at least one; no reference more than once oftener than another."""
    shelf = shelf_of(*(example(i) for i in range(labelled)))
    add_lm_examples(shelf, shelf_of(*(example(100 + i, targets=[], lm=2) for i in range(references))), ratio, seed)
    added = [e.input_ids[0] for e in shelf[labelled:]]
    assert len(added) == max(1, round(ratio * labelled))
    counts = [added.count(100 + i) for i in range(references)]
    assert max(counts) - min(counts) <= 1
    assert shelf.weights[labelled:].tolist() == [[0.0, 2.0]] * len(added)


def test_balanced_labels_weigh_the_same():
    """Three positions correct, one incorrect: 4 / (2 · 3) = 2/3 each, and 4 / (2 · 1) = 2; lm is left alone."""
    shelf = shelf_of(example(0, targets=[1.0, 1.0]), example(1, targets=[0.5, 0.0]), example(2, targets=[], lm=2))
    weigh(shelf, None)
    assert [e.weights for e in shelf] == [pytest.approx([2 / 3, 2 / 3]), pytest.approx([2 / 3, 2.0]), None]
    assert shelf.weights[:, 0].sum() == pytest.approx(4)


def test_three_classes_weigh_the_same():
    """Two correct, one incorrect, three neutral: 6 / (3 · 2) = 1, 6 / 3 = 2 and 6 / (3 · 3) = 2/3."""
    shelf = shelf_of(example(0, targets=[1.0, 2.0, 1.0]), example(1, targets=[0.0, 2.0, 2.0]))
    weigh(shelf, None)
    assert [e.weights for e in shelf] == [pytest.approx([1, 2 / 3, 1]), pytest.approx([2, 2 / 3, 2 / 3])]


def test_given_weights_multiply_those_that_are_there():
    """Incorrect counts three times, a soft target on its nearer side; what counts half already counts 3/2 then."""
    halved = example(1, targets=[0.0, 1.0])
    halved.weights = [0.5, 0.5]
    shelf = shelf_of(example(0, targets=[0.0, 0.25, 0.5, 2.0]), halved, example(2, targets=[], lm=2))
    weigh(shelf, ClassWeights(incorrect=3.0, neutral=0.5))
    assert [e.weights for e in shelf] == [[3.0, 3.0, 1.0, 0.5], [1.5, 0.5], None]
    assert shelf.weights.tolist() == [[7.5, 0.0], [2.0, 0.0], [0.0, 2.0]], "what a batch's loss is divided by"
    for weight in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match=r"data.class_weights.correct: expected a weight above 0"):
            ClassWeights(correct=weight).check()


def test_nothing_to_balance():
    with pytest.raises(InputError, match="class_weights: balanced, but every label is correct"):
        weigh(shelf_of(example(0), example(1)), None)
