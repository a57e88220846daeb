"""Examples on disk, and what is done to all of them before they are divided into batches."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepverify.data.batch import collate
from stepverify.data.encode import Example, LeftOut
from stepverify.data.packing import count_once
from stepverify.data.prepare import ClassWeights, add_lm_examples, encode_all, weigh
from stepverify.readers import Reader
from stepverify.records import InputError, Solution
from tests.helpers.stores import example, store_of

# ── what is left out ──────────────────────────────────────────────────────────────────────────────


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
        store = encode_all(Counting(), encode, "fit")
    assert caplog.messages[-1] == (
        "fit: 2 of 4 solutions, 6 tokens; left out: 1 too long (p#3), 1 of excluded problems (f:1); "
        "noted: 1 empty steps (f:2: step 0)"
    )
    assert store.left_out == {"too long": 1, "of excluded problems": 1}


# ── lm, weights: against plain lists ────────────────────────────────────────────────────────


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.25, 0.5, 1.0, 2.0]), st.integers(0, 3))
def test_language_is_mixed_in_at_its_ratio(labelled, references, ratio, seed):
    """round(ratio · labelled) in all, but at least one; no reference more than once oftener than another."""
    store = store_of(*(example(i) for i in range(labelled)))
    add_lm_examples(store, store_of(*(example(100 + i, targets=[], lm=2) for i in range(references))), ratio, seed)
    added = [e.input_ids[0] for e in store[labelled:]]
    assert len(added) == max(1, round(ratio * labelled))
    counts = [added.count(100 + i) for i in range(references)]
    assert max(counts) - min(counts) <= 1
    assert store.weights[labelled:].tolist() == [[0.0, 2.0]] * len(added)


def test_language_of_new_and_known_problems():
    """Which problems are new is told by id; the digests say all that are learned from."""
    store = store_of(example(0, problem="q"), example(1, problem="p"))
    lm = store_of(example(2, targets=[], lm=1, problem="r"), example(3, targets=[], lm=1, problem="p"))
    add_lm_examples(store, lm, 2.0, 0)
    named = dict(zip([e.input_ids[0] for e in store], store.groups.tolist(), strict=True))
    assert named == {0: 0, 1: 1, 3: 1, 2: 2}
    assert [*store.problems] == [*store.digests.values()] == ["q", "p", "r"]
    assert store[4:2:-1] == [store[4], store[3]]
    with pytest.raises(IndexError):
        store[6]


def _reference(examples: list[Example], lm: list[Example], order, once: bool, given, balanced: bool):
    """The same on plain lists, a position at a time."""
    entries = [replace(e) for e in [*examples, *(lm[i] for i in order)]]
    if once:
        read, learned = Counter(), Counter()
        for e in entries:
            prefix = [(e.record.problem_id, *e.input_ids[: p + 1]) for p in range(len(e.input_ids))]
            read.update(prefix[p] for p in e.positions)
            learned.update(prefix[p] for p in e.lm_positions)
        for e in entries:
            prefix = [(e.record.problem_id, *e.input_ids[: p + 1]) for p in range(len(e.input_ids))]
            e.weights = [1 / read[prefix[p]] for p in e.positions]
            e.lm_weights = [1 / learned[prefix[p]] for p in e.lm_positions]
    kinds = [["neutral" if t == 2 else "correct" if t >= 0.5 else "incorrect" for t in e.targets] for e in entries]
    before = [e.weights or [1.0] * len(e.positions) for e in entries]
    if balanced:
        sums = Counter()
        for kind, weights in zip(kinds, before, strict=True):
            for k, w in zip(kind, weights, strict=True):
                sums[k] += w
        given = {k: sum(sums.values()) / len(sums) / sums[k] for k in sums}
    for e, kind, weights in zip(entries, kinds, before, strict=True):
        if given and e.positions:
            e.weights = [given[k] * w for k, w in zip(kind, weights, strict=True)]
    return entries


@given(st.data())
def test_everything_at_once_equals_plain_lists(data):
    """Entries, weights, and the batch of all of them: lm mixed in, shared positions once, classes weighed."""
    ids = st.lists(st.integers(3, 4), min_size=2, max_size=5)

    def made(number, judged):
        tokens, problem = data.draw(ids), data.draw(st.sampled_from("pq"))
        places = data.draw(st.sets(st.integers(0, len(tokens) - 2), min_size=judged).map(sorted))
        targets = [data.draw(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])) for _ in places] if judged else []
        record = Solution(id=f"{problem}#{number}", problem_id=problem, problem=problem, steps=["1"])
        return Example(tokens, places if judged else [], targets, record, [] if judged else places)

    examples = [made(i, True) for i in range(data.draw(st.integers(1, 4)))]
    lm = [made(100 + i, False) for i in range(data.draw(st.integers(0, 3)))]
    once, balanced = data.draw(st.booleans()), data.draw(st.booleans())
    given = data.draw(st.none() | st.just({"incorrect": 3.0, "correct": 1.0, "neutral": 0.5}))
    balanced = balanced and len({min(2, t >= 0.5) + (t == 2) for e in examples for t in e.targets}) > 1
    store, order = store_of(*examples), []
    if lm:
        add_lm_examples(store, store_of(*lm), 1.5, seed=7)
        place = {e.record.id: i for i, e in enumerate(lm)}
        order = [place[e.record.id] for e in store[len(examples) :]]
    if once:
        count_once(store)
    if balanced or given:
        weigh(store, None if balanced else ClassWeights(**given))
    wanted = _reference(examples, lm, order, once, given, balanced)
    for found, expected in zip(store, wanted, strict=True):
        assert replace(found, weights=None, lm_weights=None) == replace(expected, weights=None, lm_weights=None)
        assert (found.weights or [1.0] * len(found.positions)) == pytest.approx(
            expected.weights or [1.0] * len(expected.positions)
        )
        assert (found.lm_weights or []) == pytest.approx(expected.lm_weights or [1.0] * len(expected.lm_positions)) or (
            found.lm_weights is None and expected.lm_weights is None
        )
    np.testing.assert_allclose(store.weights, [e.weight() for e in wanted])
    one, other = (collate(some, lm=True) for some in (store[:], wanted))
    assert one.scored.index.tolist() == other.scored.index.tolist()
    assert one.scored.weights.tolist() == pytest.approx(other.scored.weights.tolist())
    assert one.lm.weights.tolist() == pytest.approx(other.lm.weights.tolist())


def test_balanced_labels_weigh_the_same():
    """Three positions correct, one incorrect: 4 / (2 · 3) = 2/3 each, and 4 / (2 · 1) = 2; lm is left alone."""
    store = store_of(example(0, targets=[1.0, 1.0]), example(1, targets=[0.5, 0.0]), example(2, targets=[], lm=2))
    weigh(store, None)
    assert [e.weights for e in store] == [pytest.approx([2 / 3, 2 / 3]), pytest.approx([2 / 3, 2.0]), None]
    assert store.weights[:, 0].sum() == pytest.approx(4)


def test_three_classes_weigh_the_same():
    """Two correct, one incorrect, three neutral: 6 / (3 · 2) = 1, 6 / 3 = 2 and 6 / (3 · 3) = 2/3."""
    store = store_of(example(0, targets=[1.0, 2.0, 1.0]), example(1, targets=[0.0, 2.0, 2.0]))
    weigh(store, None)
    assert [e.weights for e in store] == [pytest.approx([1, 2 / 3, 1]), pytest.approx([2, 2 / 3, 2 / 3])]


def test_given_weights_multiply_those_that_are_there():
    """Incorrect counts three times, a soft target on its nearer side; what counts half already counts 3/2 then."""
    halved = example(1, targets=[0.0, 1.0])
    halved.weights = [0.5, 0.5]
    store = store_of(example(0, targets=[0.0, 0.25, 0.5, 2.0]), halved, example(2, targets=[], lm=2))
    weigh(store, ClassWeights(incorrect=3.0, neutral=0.5))
    assert [e.weights for e in store] == [[3.0, 3.0, 1.0, 0.5], [1.5, 0.5], None]
    assert store.weights.tolist() == [[7.5, 0.0], [2.0, 0.0], [0.0, 2.0]], "what a batch's loss is divided by"
    for weight in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match=r"data.class_weights.correct: expected a weight above 0"):
            ClassWeights(correct=weight).check()


def test_a_loss_with_denominators_of_its_own():
    """Pairs of a correct and an incorrect position: 2 · 1, then 1 · 1, then the sum of the weights; lm has none."""

    def pairs(example):
        incorrect = example.targets.count(0.0)
        return float(incorrect * (len(example.targets) - incorrect)) if incorrect else None

    store = store_of(example(0, targets=[1.0, 1.0, 0.0]), example(1, targets=[0.0, 1.0]), example(2), denominator=pairs)
    add_lm_examples(store, store_of(example(9, targets=[], lm=2)), 1 / 3, 0)
    assert [e.denominator for e in store] == [2.0, 1.0, None, None]
    assert store.weights.tolist() == [[2, 0], [1, 0], [1, 0], [0, 2]]


def test_nothing_to_balance():
    with pytest.raises(InputError, match="class_weights: balanced, but every label is correct"):
        weigh(store_of(example(0), example(1)), None)
