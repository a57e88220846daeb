import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepverify.data.batch import collate
from stepverify.losses import OutcomeRanking, SolutionRanking, StepRanking
from stepverify.records import InputError
from tests.helpers.losses import lost
from tests.helpers.stores import example

STEPS = st.lists(st.tuples(st.floats(-4, 4), st.booleans()), min_size=1, max_size=5)


def two_logits(odds):
    """Logits of incorrect and correct with these log-odds."""
    odds = torch.as_tensor(odds, dtype=torch.float32)
    return torch.stack([0.3 - odds / 2, 0.3 + odds / 2], 1)


def softplus(x):
    return math.log1p(math.exp(x))


# ── steps of a solution ───────────────────────────────────────────────────────────────────────────


def test_steps_by_hand():
    """exp Q = 2 correct, 3 incorrect, 4 correct; 2 correct alone; 3 incorrect alone. exp margin = 2: incorrect ones are 6.

    With the anchor (1): first solution 1 / (1 + 6), 2 / (1 + 2 + 6) and 4 / (1 + 2 + 4 + 6): (ln 7 + ln 9/2 + ln 13/4)
    / 3; second 2 / (1 + 2): ln 3/2; third 1 / (1 + 6): ln 7. Three solutions count.
    Without: 2 / (2 + 6) and 4 / (2 + 4 + 6): (ln 4 + ln 3) / 2; the other two have nothing to compare.
    """
    odds, targets, owner = (
        [math.log(n) for n in (2, 3, 4, 2, 3)],
        torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0]),
        [0, 0, 0, 1, 2],
    )
    log = math.log
    total, count = lost(StepRanking(log(2)), two_logits(odds), targets, owner=owner)
    assert total.item() == pytest.approx((log(7) + log(9 / 2) + log(13 / 4)) / 3 + log(3 / 2) + log(7), rel=1e-5)
    assert count.item() == 3.0
    total, count = lost(StepRanking(log(2), anchor=False), two_logits(odds), targets, owner=owner)
    assert total.item() == pytest.approx((log(4) + log(3)) / 2, rel=1e-5)
    assert count.item() == 1.0


def paper(solution, margin, anchor):
    """Equation 10 as written, with plain sums; the mean over the steps that are compared, None if there are none."""
    correct = [1.0] * anchor + [math.exp(q) for q, good in solution if good]
    incorrect = [math.exp(q + margin) for q, good in solution if not good]
    terms = [
        -math.log(q / (sum(correct[: t + 1]) + sum(incorrect))) for t, q in enumerate(correct) if t + len(incorrect) > 0
    ]
    return sum(terms) / len(terms) if terms else None


@given(st.lists(STEPS, min_size=1, max_size=4), st.floats(0, 5), st.booleans())
@settings(max_examples=40)
def test_steps_as_in_the_paper(solutions, margin, anchor):
    """Value, count, finite gradients; and the denominators of single solutions add up to the count."""
    loss = StepRanking(margin, anchor)
    flat = [step for solution in solutions for step in solution]
    outputs = two_logits([q for q, _ in flat]).requires_grad_()
    targets = torch.tensor([float(good) for _, good in flat])
    owner = [i for i, solution in enumerate(solutions) for _ in solution]
    total, count = lost(loss, outputs, targets, owner=owner)
    known = [value for s in solutions if (value := paper(s, margin, anchor)) is not None]
    assert total.item() == pytest.approx(sum(known), rel=1e-4, abs=1e-5)
    each = [loss.denominator(example(0, targets=[float(good) for _, good in s])) for s in solutions]
    assert count.item() == len(known) == sum(each)
    total.backward()
    assert torch.isfinite(outputs.grad).all()


def test_invariances_of_steps():
    """Without the anchor a constant on the log-odds of a solution changes nothing; with it, it does. The order of correct
    steps matters, that of incorrect ones does not."""
    odds, targets, owner = (
        torch.tensor([1.0, -1.0, 0.5, -2.0, 2.0, 0.0]),
        torch.tensor([1.0, 0, 1, 0, 1, 0]),
        [0] * 4 + [1] * 2,
    )
    shifted = odds + torch.tensor([7.0] * 4 + [-3.0] * 2)

    def total(loss, odds):
        return lost(loss, two_logits(odds), targets, owner=owner)[0].item()

    assert total(StepRanking(anchor=False), shifted) == pytest.approx(total(StepRanking(anchor=False), odds), rel=1e-4)
    assert total(StepRanking(), shifted) != pytest.approx(total(StepRanking(), odds), rel=0.1)
    assert total(StepRanking(), odds[[0, 3, 2, 1, 4, 5]]) == pytest.approx(total(StepRanking(), odds), rel=1e-5)
    assert total(StepRanking(), odds[[2, 1, 0, 3, 4, 5]]) < total(StepRanking(), odds) * 0.999, (
        "1/2 before 1 is in order"
    )


# ── solutions of a problem ────────────────────────────────────────────────────────────────────────


def test_solutions_by_hand():
    """Scores 2, 0 correct and 1 incorrect of a problem; 5 correct of another; -1 correct, 3 incorrect of a third.

    Pairwise: (softplus(1 - 2) + softplus(1 - 0)) / 2, none, softplus(3 + 1). Listwise with Z = e² + 1 + e:
    ln Z - (2 + 0) / 2, none, ln(e⁻¹ + e³) + 1. Two problems count.
    """
    logits, targets = torch.tensor([2.0, 0.0, 5.0, 1.0, -1.0, 3.0]), torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    problem = [0, 0, 1, 0, 2, 2]
    total, count = lost(OutcomeRanking(), logits, targets, problem=problem)
    assert total.item() == pytest.approx((softplus(-1) + softplus(1)) / 2 + softplus(4), rel=1e-5)
    assert count.item() == 2.0
    total, count = lost(OutcomeRanking("listwise"), logits, targets, problem=problem)
    hand = math.log(math.exp(2) + 1 + math.exp(1)) - 1 + math.log(math.exp(-1) + math.exp(3)) + 1
    assert total.item() == pytest.approx(hand, rel=1e-5)
    assert count.item() == 2.0


def test_solutions_by_their_steps_by_hand():
    """Log-odds 3, 1 of a correct solution and 2, -1 | -2, 4 of two with an incorrect step, of one problem.

    min: 1 against -1 and -2: (softplus(-2) + softplus(-3)) / 2. last: the third ends correctly: 1 and 4 against -1:
    (softplus(-2) + softplus(-5)) / 2.
    """
    odds, targets = [3.0, 1.0, 2.0, -1.0, -2.0, 4.0], torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    for aggregation, hand in (("min", (softplus(-2) + softplus(-3)) / 2), ("last", (softplus(-2) + softplus(-5)) / 2)):
        loss = SolutionRanking(aggregation=aggregation)
        total, count = lost(loss, two_logits(odds), targets, owner=[0, 0, 1, 1, 2, 2])
        assert total.item() == pytest.approx(hand, rel=1e-5)
        assert count.item() == 1.0
        correct = [loss.is_correct(example(0, targets=targets[i : i + 2].tolist())) for i in (0, 2, 4)]
        assert correct == [True, False, aggregation == "last"]


@given(st.permutations(range(7)), st.sampled_from(["pairwise", "listwise"]), st.floats(-9, 9))
@settings(max_examples=20)
def test_invariances_of_solutions(order, form, constant):
    """Neither a constant on all scores of a problem nor the order of the solutions changes values or gradients."""
    scores, targets = torch.tensor([0.5, -1, 2, 0, 1, -2, 3]), torch.tensor([1.0, 0, 0, 1, 1, 0, 1])
    problem = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    seen = []
    for index, shift in ((list(range(7)), 0.0), (order, constant)):
        leaf = scores[index].requires_grad_()
        shifted = leaf + shift * problem[index]
        total, count = lost(OutcomeRanking(form), shifted, targets[index], problem=problem[index].tolist())
        total.backward()
        seen.append((total.item(), count.item(), leaf.grad[torch.argsort(torch.tensor(index))]))
    assert seen[0][0] == pytest.approx(seen[1][0], rel=1e-4)
    assert seen[0][1] == seen[1][1] == 2.0
    torch.testing.assert_close(seen[0][2], seen[1][2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "loss", [OutcomeRanking(), OutcomeRanking("listwise"), SolutionRanking(), SolutionRanking("listwise")]
)
def test_nothing_to_compare_gives_zero_of_zero(loss):
    """All correct: sum, count and gradients are 0, none of them nan; in half precision too."""
    outputs = (torch.zeros(3) if isinstance(loss, OutcomeRanking) else torch.zeros(3, 2)).bfloat16().requires_grad_()
    total, count = lost(loss, outputs, torch.ones(3))
    total.backward()
    assert (total.item(), count.item(), outputs.grad.abs().sum().item()) == (0.0, 0.0, 0.0)
    assert total.dtype == torch.float32


@pytest.mark.parametrize(("neutral", "odds"), [("positive", math.log(5)), ("negative", math.log(2 / 4))])
def test_log_odds_of_three_labels(neutral, odds):
    """Logits 0, ln 2, ln 3: P(neutral) stands on the side that the values count it on, (2 + 3) : 1 or 2 : (1 + 3).

    Against an incorrect step of log-odds 0 at which neutral has no probability, the loss is softplus(-odds).
    """
    logits = torch.tensor([[0.0, math.log(2), math.log(3)], [0.0, 0.0, -100.0]])
    total, _ = lost(SolutionRanking(), logits, torch.tensor([1.0, 0.0]), model=SimpleNamespace(neutral=neutral))
    assert total.item() == pytest.approx(softplus(-odds), rel=1e-5)


@pytest.mark.parametrize("loss", [StepRanking(), SolutionRanking(), SolutionRanking("listwise", "last")])
def test_shared_steps_are_compared_in_each_solution(loss):
    """Two solutions share two steps, which a batch holds once: values are those of six separate positions, the gradient
    of a shared one is the sum of its two."""
    examples = [example(n, targets=[1.0, 1.0, final]) for n, final in enumerate((0.0, 1.0))]
    for number, one in enumerate(examples):
        one.input_ids = [7, 8, number]
    at = collate(examples).scored
    assert (len(at.index), len(at.entries)) == (4, 6)
    shared = two_logits(torch.linspace(-1, 2, 4)).requires_grad_()
    apart = shared.detach()[at.entries].requires_grad_()
    seen = [loss(shared, at, None)]
    seen.append(lost(loss, apart, at.targets[at.entries], owner=at.owner.tolist()))
    for total, _ in seen:
        total.backward()
    assert seen[0][0].item() == pytest.approx(seen[1][0].item(), rel=1e-6)
    assert seen[0][1] == seen[1][1] > 0
    torch.testing.assert_close(shared.grad, torch.zeros(4, 2).index_add(0, at.entries, apart.grad))


@pytest.mark.parametrize("loss", [StepRanking(), StepRanking(anchor=False), OutcomeRanking(), SolutionRanking()])
def test_a_batch_of_language_alone(loss):
    """A reference solution without scored positions: 0 of 0, and the gradient still reaches the outputs."""
    at = collate([example(0, targets=[], lm=2)]).scored
    outputs = (torch.zeros(0) if isinstance(loss, OutcomeRanking) else torch.zeros(0, 2)).requires_grad_()
    total, count = loss(outputs, at, None)
    total.backward()
    assert (total.item(), count.item(), len(outputs.grad)) == (0.0, 0.0, 0)


def test_refused_arguments():
    for make, message in (
        (lambda: StepRanking(-1.0), "loss.margin: expected a number of 0 or more, got -1.0"),
        (lambda: StepRanking(math.nan), "loss.margin: expected a number of 0 or more, got nan"),
        (lambda: OutcomeRanking("triplet"), "loss.form: expected pairwise or listwise, got 'triplet'"),
        (lambda: SolutionRanking(aggregation="mean"), "loss.aggregation: expected min or last, got 'mean'"),
    ):
        with pytest.raises(InputError, match=message):
            make()
