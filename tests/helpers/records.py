"""Arbitrary records, and what is said of one."""

import pytest
from hypothesis import strategies as st

from stepverify.records import InputError, Solution, StepLabel

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


NUMBER = st.floats(allow_nan=False, allow_infinity=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


META = st.dictionaries(TEXT, JSON, max_size=3)


COUNTED = st.integers(1, 99).flatmap(
    lambda n: st.integers(0, n).map(lambda k: StepLabel(num_correct=k, num_rollouts=n)),
)


LABEL = st.none() | st.sampled_from([-1, 0, 1]).map(lambda r: StepLabel(rating=r)) | COUNTED


def optional(strategy):
    return st.none() | strategy


def values(num_steps):
    """Probabilities: none, one, one per step or more."""
    return st.sampled_from([0, 1, num_steps, num_steps + 2]).flatmap(
        lambda n: st.lists(st.floats(0, 1), min_size=n, max_size=n)
    )


SOLUTIONS = st.lists(TEXT, max_size=4).flatmap(
    lambda steps: st.builds(
        Solution,
        id=TEXT, problem_id=TEXT, problem=TEXT, steps=st.just(steps), answer=optional(TEXT),
        token_ids=optional(st.lists(st.integers(0), max_size=3)), finish=st.sampled_from([None, "stop", "length"]),
        seed=optional(st.integers()), generator=optional(TEXT), predicted=optional(TEXT),
        correct=optional(st.booleans()),
        step_labels=optional(st.lists(LABEL, min_size=len(steps), max_size=len(steps))),
        scores=st.dictionaries(TEXT, values(len(steps)), max_size=2), meta=META,
    )
)  # fmt: skip


def message(call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    return str(caught.value)
