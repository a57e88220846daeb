"""PRM800K as other recipes read it: alternatives left out or combined, and earlier generations alone."""

import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepverify.readers import PRM800K
from stepverify.records import InputError


def step(*completions, chosen=None, human=None):
    return {
        "completions": [{"text": text, "rating": rating, "flagged": None} for text, rating in completions],
        "human_completion": human and {"text": human, "rating": None}, "chosen_completion": chosen,
    }  # fmt: skip


def row(*steps, generation=None):
    return {
        "generation": generation, "is_quality_control_question": False, "is_initial_screening_question": False,
        "question": {"problem": f"{generation} ?", "ground_truth_answer": "2"},
        "label": {"steps": list(steps), "finish_reason": "solution"},
    }  # fmt: skip


def one(folder, *rows, **options):
    path = folder / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PRM800K(str(path), **options)


def read(reader):
    return [(s.steps, [label and label.rating for label in s.step_labels]) for s in reader.solutions()]


WALK = (
    step(("a", 1), ("b", 0), ("u", None), chosen=0),
    step(("c", -1), ("d", 1), chosen=1),
    step(("e", 1), ("f", -1), chosen=0),
)


def test_the_chosen_path_alone(tmp_path):
    reader = one(tmp_path, row(*WALK), alternatives="chosen")
    assert read(reader) == [(["a", "d", "e"], [1, 1, 1])]
    assert reader.left_out == {"alternatives without a rating": 1, "alternatives": 3}


def test_the_product_of_rated_alternatives(tmp_path):
    """2 first steps x (c, which ends, + d x 2) = 6 paths; the main one first; labels at all steps; u has no rating."""
    reader = one(tmp_path, row(*WALK), alternatives="product")
    assert read(reader) == [
        (["a", "d", "e"], [1, 1, 1]), (["a", "d", "f"], [1, 1, -1]), (["a", "c"], [1, -1]),
        (["b", "d", "e"], [0, 1, 1]), (["b", "d", "f"], [0, 1, -1]), (["b", "c"], [0, -1]),
    ]  # fmt: skip
    first, second, *_ = reader.solutions()
    assert (first.finish, second.finish) == ("stop", None)
    assert "alternative" not in first.meta
    assert second.meta["alternative"] is True
    assert reader.left_out == {"alternatives without a rating": 1}


def test_the_product_is_capped_and_counted(tmp_path):
    """6 paths and 2^40, of which 4 each are taken: 2 and 2^40 - 4 are counted, without being made."""
    many = [step((f"{i}a", 1), (f"{i}b", 0), chosen=0) for i in range(40)]
    reader = one(tmp_path, row(*WALK), row(*many, generation=1), alternatives="product", max_product=4)
    assert len(read(reader)) == 8
    assert reader.left_out["combinations beyond max_product = 4"] == 2 + 2**40 - 4
    with pytest.raises(InputError, match="max_product: expected 1 or more, got 0"):
        one(tmp_path, row(*WALK), max_product=0)


def test_a_labellers_own_step_is_the_only_one_of_its_turn(tmp_path):
    """It has no rating; rated completions beside it are combined too."""
    reader = one(tmp_path, row(step(("a", 1), chosen=0), step(("b", -1), human="h")), alternatives="product")
    assert read(reader) == [(["a", "h"], [1, None]), (["a", "b"], [1, -1])]
    assert reader.noted == {"steps without a rating": 1}


@given(st.lists(st.lists(st.sampled_from([1, 0, -1]), min_size=1, max_size=3), min_size=1, max_size=4))
def test_the_product_is_that_of_all_choices(tmp_path_factory, ratings):
    """Every choice of one completion a step, cut after its first -1, once."""
    steps = [step(*((f"{i}.{j}", r) for j, r in enumerate(turn)), chosen=0) for i, turn in enumerate(ratings)]
    reader = one(tmp_path_factory.mktemp("p"), row(*steps), alternatives="product", max_product=1000)
    wanted = set()
    for choice in product(*(enumerate(turn) for turn in ratings)):
        end = next((i + 1 for i, (_, r) in enumerate(choice) if r == -1), len(choice))
        wanted.add(tuple(f"{i}.{j}" for i, (j, _) in enumerate(choice[:end])))
    found = [tuple(steps) for steps, _ in read(reader)]
    assert len(found) == len(wanted)
    assert {*found} == wanted


def test_earlier_generations_alone(tmp_path):
    """Phase 1 has no generation, and stays."""
    rows = [row(*WALK, generation=g) for g in (None, 0, 3, 4, 9)]
    reader = one(tmp_path, *rows, alternatives="chosen", max_generation=3)
    assert [s.meta["generation"] for s in reader.solutions()] == [None, 0, 3]
    assert reader.left_out["rows of later generations"] == 2
