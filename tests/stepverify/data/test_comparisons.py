"""Losses between solutions of a problem: what is compared in which batch, and what the loss is divided by."""

import numpy as np
import pytest
import torch

from stepverify.data.batch import collate
from stepverify.data.batching import BatchSampler, Plan
from stepverify.data.comparisons import Comparisons, check_settings, comparisons_of
from stepverify.data.packing import PrefixPacks
from stepverify.losses import OutcomeBCE, OutcomeRanking, StepRanking
from stepverify.records import InputError
from tests.helpers.stores import example, store_of

# Correct and incorrect solutions of each problem; c and f give no pair.
PROBLEMS = {"a": [1, 0, 0, 1], "b": [0, 1], "c": [1, 1, 1], "d": [1, 0, 1, 0, 0], "e": [0, 0, 1], "f": [0]}


def solutions(problems):
    """Examples of three tokens, and one of the LM loss for each problem."""
    numbered = [(problem, kind) for problem, kinds in problems.items() for kind in kinds]
    judged = [example(n, targets=[float(kind)], problem=problem) for n, (problem, kind) in enumerate(numbered)]
    return [*judged, *(example(90 + n, targets=[], problem=p, lm=2) for n, p in enumerate(problems))]


def gradient(examples, loss, scores, plans, share):
    """Gradient of ``share`` times the sum over batches of loss / denominator, by the score of each solution."""
    leaf = scores.clone().requires_grad_()
    for plan in plans:
        batch = collate([examples[i] for i in plan.indices], loss_denominators=plan.loss_denominators, lm=True)
        at = batch.scored
        # One scored position each.
        outputs = torch.zeros(len(at.index)).index_put((at.entries,), leaf[plan.indices][at.owner])
        total, _ = loss(outputs, at, None)
        (share * total / plan.loss_denominators[0]).backward()
    return leaf.grad


@pytest.mark.parametrize("form", ["pairwise", "listwise"])
@pytest.mark.parametrize(("budget", "num_ranks"), [(15, 1), (15, 2), (30, 2), (30, 3), (200, 4)])
def test_the_update_does_not_depend_on_the_split(form, budget, num_ranks):
    """Any packs of whole problems on any ranks: the gradient of a step is that of one batch of everything.

    Problem d has 5 solutions, of 3 tokens each: 15 hold every problem but for the LM example, which is compared with
    nothing. The whole loss is the mean over the four problems a, b, d and e.
    """
    loss, examples = OutcomeRanking(form), store_of(*solutions(PROBLEMS))
    found = comparisons_of(examples, loss, "train")
    scores = torch.linspace(-2, 3, len(examples)).roll(5)
    whole = gradient(examples, loss, scores, [Plan([*range(len(examples))], (4.0, 1.0))], 1.0)
    maker = PrefixPacks(examples.sequences, examples.groups.tolist(), budget)
    count = len(BatchSampler(maker, examples.lengths, examples.weights, shuffle=True, num_ranks=num_ranks))
    total = torch.zeros(len(examples))
    for rank in range(num_ranks):
        sampler = BatchSampler(
            maker, examples.lengths, examples.weights, shuffle=True, rank=rank, num_ranks=num_ranks,
            accumulate=count, comparisons=found,
        )  # fmt: skip
        assert found.num_divided(sampler.batches()) == 0
        plans = list(sampler)
        assert len(plans) == count
        total += gradient(examples, loss, scores, plans, 1 / (count * num_ranks))
    assert whole.abs().sum() > 0.5
    torch.testing.assert_close(total, whole)


def test_a_divided_problem_counts_by_its_parts_and_is_said():
    """One problem of four solutions on two ranks: 1, 0 and 1, 0 by index. Each part is a problem with one pair.

    Scores 2, 0 | 0, 1: the loss is (softplus(-2) + softplus(1)) / 2, and pairs over the cut are not compared.
    """
    loss, examples = OutcomeRanking(), store_of(*solutions({"a": [1, 0, 1, 0]})[:4])
    found = Comparisons.of(examples, loss)
    maker = PrefixPacks(examples.sequences, examples.groups.tolist(), 100)
    samplers = [
        BatchSampler(maker, examples.lengths, examples.weights, shuffle=True, rank=r, num_ranks=2, comparisons=found)
        for r in range(2)
    ]
    plans = [next(iter(s)) for s in samplers]
    assert sorted(tuple(p.indices) for p in plans) == [(0, 1), (2, 3)]
    assert [p.loss_denominators[0] for p in plans] == [1.0, 1.0], "two problems in two batches"
    scores = torch.tensor([2.0, 0.0, 0.0, 1.0])
    seen = gradient(examples, loss, scores, plans, 0.5)
    slopes = torch.sigmoid(torch.tensor([-2.0, 1.0]))
    torch.testing.assert_close(seen, torch.stack([-slopes, slopes], 1).flatten() / 2)
    with pytest.warns(UserWarning, match=r"data.pack_tokens: 1 of 1 problems are divided between batches"):
        found.warn_of_divided(samplers[0].batches(), "pack_tokens")


def test_batches_are_split_between_problems():
    """8 solutions, 3 of a and 5 of b in turn, are split 3 and 5, not 4 and 4; of one problem alone, in the middle."""
    groups = np.array([0, 1, 0, 1, 1, 0, 1, 1])
    found = Comparisons(groups, np.ones(8))
    at, (one, two) = found.split([np.arange(8)])
    assert (at, one.tolist(), two.tolist()) == (0, [0, 2, 5], [1, 3, 4, 6, 7])
    at, halves = found.split([one, two])
    assert (at, [half.tolist() for half in halves]) == (1, [[1, 3, 4], [6, 7]])


def test_what_teaches_nothing_is_counted(caplog):
    """Four of the six problems; all of nothing is refused, in training alone."""
    with caplog.at_level("INFO"):
        comparisons_of(store_of(*solutions(PROBLEMS)), OutcomeRanking(), "train")
    assert (
        "train: OutcomeRanking: 4 of 6 problems have correct and incorrect solutions to compare; 1 with correct ones "
        "alone teach nothing; 1 with incorrect ones alone teach nothing"
    ) in caplog.text
    good = store_of(*solutions({"c": [1, 1], "d": [1]}))
    assert comparisons_of(good, OutcomeRanking(), "validation").count(np.arange(3)) == 0.0
    with pytest.raises(InputError, match=r"data\.train: OutcomeRanking finds nothing to compare"):
        comparisons_of(good, OutcomeRanking(), "train")


def test_solutions_without_comparable_steps_are_counted(caplog):
    """Without an anchor: one correct step, or incorrect ones alone."""
    loss = StepRanking(anchor=False)
    examples = store_of(
        example(0, targets=[1.0]), example(1, targets=[0.0, 0.0]), example(2, targets=[1.0, 0.0]), denominator=loss.denominator
    )  # fmt: skip
    with caplog.at_level("INFO"):
        assert comparisons_of(examples, loss, "train") is None
    assert "train: StepRanking: 2 of 3 solutions teach nothing: nothing to compare" in caplog.text


def test_settings_that_a_ranking_loss_would_ignore_are_refused():
    check_settings(OutcomeBCE(), True, True, False)
    check_settings(OutcomeRanking(), False, False, True)
    for given, message in (
        ((StepRanking(), True, False, True), "data.prefix_weighting: StepRanking does not weigh single positions"),
        ((StepRanking(), False, True, True), "data.class_weights: StepRanking does not weigh single positions"),
        ((OutcomeRanking(), False, False, False), "data.pack_tokens: not given, but OutcomeRanking compares"),
    ):
        with pytest.raises(InputError, match=message):
            check_settings(*given)
    with pytest.raises(InputError, match="loss: OutcomeRanking compares the solutions of a problem, which only prefix"):
        Comparisons(np.zeros(2), np.array([1.0, 0.0]), "OutcomeRanking").check_packs(False)
