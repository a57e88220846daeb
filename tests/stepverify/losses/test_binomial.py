import math

import pytest
import torch

pytest.importorskip("lightning")

from stepverify.data.packing import count_once
from stepverify.data.targets import StepTargets
from stepverify.losses import StepBinomial
from stepverify.models import Backbone
from stepverify.modules import ProcessRewardModel
from stepverify.records import InputError, Solution, StepLabel
from tests.helpers.labels import counted
from tests.helpers.losses import lost
from tests.helpers.modules import BASE, TEMPLATE
from tests.helpers.stores import store_of

SOFT = StepTargets(monte_carlo="soft")


def prm(targets=SOFT, **arguments):
    return ProcessRewardModel(
        Backbone(path=BASE, weights="random"), TEMPLATE, targets=targets, loss=StepBinomial(), **arguments
    )


def test_counts_by_hand():
    """Value 3/4 against 1 of 2 and 8 of 16: -(ln 3/4 + ln 1/4), and eight times that, of 18 rollouts.

    The gradient of the log-odds is n p - k: 2 · 3/4 - 1 = 1/2 and 16 · 3/4 - 8 = 4.
    """
    logits = torch.tensor([[0.0, math.log(3)]] * 2, requires_grad=True)
    total, count = lost(StepBinomial(), logits, torch.tensor([0.5, 0.5]), torch.tensor([2.0, 16.0]))
    assert total.item() == pytest.approx(-9 * (math.log(3 / 4) + math.log(1 / 4)), rel=1e-5)
    assert count.item() == 18.0
    total.backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.5, 0.5], [-4.0, 4.0]]))


def test_counts_of_an_early_stop_are_unbiased():
    """At most two rollouts of p = 1/2, stopped by the first correct one: 1 of 1 (1/2), 1 of 2 (1/4), 0 of 2 (1/4).

    E[k] - p E[n] = 3/4 - 1/2 · 3/2 = 0: the expected gradient vanishes at p. That of the shares does not: their mean is
    1/2 + 1/8 = 5/8.
    """
    shares, rollouts, probability = (
        torch.tensor([1.0, 0.5, 0.0]),
        torch.tensor([1.0, 2.0, 2.0]),
        torch.tensor([0.5, 0.25, 0.25]),
    )
    for weights, slope in ((rollouts, 0.0), (torch.ones(3), 1 / 2 - 5 / 8)):
        logits = torch.zeros(3, 2, requires_grad=True)
        lost(StepBinomial(), logits, shares, weights * probability)[0].backward()
        assert logits.grad[:, 1].sum().item() == pytest.approx(slope, abs=1e-7)


def test_labels_weigh_as_many_as_they_have_rollouts():
    """3 of 8, none, 1 of 1, a released value, and a graded final answer: 8, left out, 1, and 1 each.

    Two solutions that share the first step share its rollouts: with prefix_weighting once, 4 each.
    """
    labels = [counted(3, 8), None, counted(1, 1), StepLabel(value=0.3), StepLabel(rating=-1)]
    steps = ["a = 2", "b = 3", "c = 4", "d = 5", "#### 5"]
    module = prm()
    one, two = (
        Solution(id=f"p#{i}", problem_id="p", problem="?", steps=own, step_labels=labels[: len(own)])
        for i, own in enumerate((steps, steps[:1]))
    )
    example = module.encode(one, labelled=True)
    assert example.targets == [3 / 8, 1.0, 0.3, 0.0]
    assert example.weights == [8.0, 1.0, 1.0, 1.0]
    assert example.weight() == (11.0, 0.0)
    assert module.encode(one, labelled=False).weights is None
    assert module.encoding_options()["counts"] is True
    count_once(store := store_of(example, module.encode(two, labelled=True)))
    assert [e.weights for e in store] == [[4.0, 1.0, 1.0, 1.0], [4.0]]
    assert store.weights[:, 0].tolist() == [7.0, 4.0]


def test_counts_need_soft_targets():
    with pytest.raises(InputError, match=r"loss: StepBinomial does not support targets.monte_carlo: hard"):
        prm(StepTargets())
