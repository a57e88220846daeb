"""Validation metrics of steps and first errors: by hand, over batches and packs, and over processes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from sampling.measures import auc_within  # noqa: E402
from stepverify.data.batch import collate  # noqa: E402
from stepverify.layout import Layout  # noqa: E402
from stepverify.metrics import AUCWithinGroups, FirstErrorAccuracy  # noqa: E402
from stepverify.models import Backbone  # noqa: E402
from stepverify.modules import ProcessRewardModel  # noqa: E402
from stepverify.records import Solution, StepLabel  # noqa: E402

SOLUTIONS = st.lists(
    st.lists(st.tuples(st.integers(0, 4).map(lambda v: v / 4), st.booleans()), min_size=1, max_size=4),
    min_size=1, max_size=7,
)  # fmt: skip


def feed(metric, solutions):
    steps = [step for solution in solutions for step in solution]
    owner = [i for i, solution in enumerate(solutions) for _ in solution]
    metric.update(torch.tensor([v for v, _ in steps]), torch.tensor([int(r) for _, r in steps]), torch.tensor(owner))


def test_first_errors_by_hand():
    """Found at the second step; one step too early; none and none; called wrong at 0.4, but none is: 2 of 4."""
    metric = FirstErrorAccuracy()
    feed(metric, [[(0.9, True), (0.1, False), (0.0, False)], [(0.3, True), (0.2, False)], [(0.5, True)], [(0.4, True)]])
    assert metric.compute() == 0.5


@given(SOLUTIONS, st.integers(0, 7))
def test_each_solution_counts_once_however_they_are_batched(solutions, cut):
    """A share over solutions, by a plain loop; states of two parts add up, as those of two processes do."""
    hits = 0
    for solution in solutions:
        called = next((i for i, (value, _) in enumerate(solution) if value < 0.5), None)
        hits += called == next((i for i, (_, right) in enumerate(solution) if not right), None)
    whole, parts = FirstErrorAccuracy(), [FirstErrorAccuracy(), FirstErrorAccuracy()]
    feed(whole, solutions)
    assert whole.compute().item() == pytest.approx(hits / len(solutions))
    for metric, part in zip(parts, (solutions[:cut], solutions[cut:]), strict=True):
        if part:
            feed(metric, part)
    assert sum(m.hits for m in parts) / sum(m.total for m in parts) == whole.compute()


def test_areas_within_groups_by_hand():
    """Easy: right 0.9, 0.7, wrong 0.7: (1 + 1/2) / 2. Hard: right 0.1, wrong 0.2, 0.0: 1/2. Lost: one kind only."""
    metric = AUCWithinGroups()
    metric.update(torch.tensor([0.9, 0.2, 0.7, 0.5]), torch.tensor([1, 0, 0, 0]), ["easy", "hard", "easy", "lost"])
    metric.update(torch.tensor([0.1, 0.7, 0.0]), torch.tensor([1, 1, 0]), ["hard", "easy", "hard"])
    assert metric.compute().item() == pytest.approx((0.75 + 0.5) / 2)
    metric.reset()
    metric.update(torch.tensor([0.9, 0.5]), torch.tensor([1, 0]), ["a", "b"])
    assert metric.compute().isnan(), "no problem has both kinds"


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from("abc")), min_size=1, max_size=30),
    st.integers(0, 30),
)
def test_areas_within_groups_are_those_of_the_report(rows, cut):
    """However they are batched: what a fit logs and what a report says of the same values are the same."""
    metric = AUCWithinGroups()
    for part in (rows[:cut], rows[cut:]):
        if part:
            values, right, names = zip(*part, strict=True)
            metric.update(torch.tensor(values), torch.tensor(right).long(), names)
    values, right, names = (np.array(column) for column in zip(*rows, strict=True))
    expected = auc_within(values, right, np.unique(names, return_inverse=True)[1])
    assert metric.compute().item() == pytest.approx(np.nan if expected is None else expected, nan_ok=True)


@pytest.fixture(scope="module")
def module():
    module = ProcessRewardModel(
        Backbone(path="lit_configs/quickstart/base", weights="random"), Layout(prompt="{problem}\n")
    )
    module.model = module.build()
    return module


def labelled(number, ratings):
    steps = [f"a = {number}", "b = 1", "c = 2"][: len(ratings)]
    return Solution(
        id=f"p#{number}", problem_id="p", problem="a ?", steps=steps,
        step_labels=[r if r is None else StepLabel(rating=r) for r in ratings],
    )  # fmt: skip


def test_a_pack_of_solutions_that_share_steps(module):
    """Three solutions, the first one twice: what they share is computed once, and each counts for itself.

    P(right) of the steps as they stand in the packed outputs is set by hand: the shared first step 0.9, then 0.2 where it
    is wrong, 0.2 where it is right, and nothing below 1/2 in a solution whose middle step has no label: 3 of 4 hits.
    """
    records = [labelled(1, [1, -1]), labelled(1, [1, -1]), labelled(1, [1, 1]), labelled(2, [1, None, 1])]
    records[2].steps[1] = "b = 7"
    batch = collate([module.encode(r, labelled=True) for r in records])
    entries, wanted = batch.reads.entries, torch.tensor([0.9, 0.2, 0.9, 0.2, 0.9, 0.2, 0.8, 0.8])
    assert len(batch.reads.index) < len(entries) == len(wanted)
    values = torch.zeros(len(batch.reads.index)).scatter(0, entries, wanted)
    metrics = module.build_metrics()
    module.update_metrics(metrics, torch.stack([torch.zeros_like(values), values.logit()], -1), batch)
    assert metrics.compute()["first_error_accuracy"] == 0.75


def test_metrics_do_not_share_their_counts(module):
    """A first batch with as many right steps judged right as wrong ones judged wrong has equal counts for accuracy and for
    the F1 of errors. In the second only right steps follow, one of two missed: accuracy 3/4, F1 2 · 1 / (2 · 1 + 1) = 2/3."""
    metrics = module.build_metrics()
    for values, right in (([0.9, 0.1], [1, 0]), ([0.9, 0.2], [1, 1])):
        metrics.update(torch.tensor(values), torch.tensor(right), owner=torch.tensor([0, 1]))
    found = metrics.compute()
    assert found["step_accuracy"] == 0.75
    assert found["error_f1"] == pytest.approx(2 / 3)
