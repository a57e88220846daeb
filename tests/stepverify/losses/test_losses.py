import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from stepverify.losses import OutcomeBCE, OutcomeMSE, StepCrossEntropy, StepMSE, log_partition, token_nll
from tests.helpers.losses import PairwiseSteps, lost


def logit(*probabilities):
    return torch.tensor([math.log(p / (1 - p)) for p in probabilities])


def test_squared_error_by_hand():
    """Values 0.8, 0.5, 0.1 against 1, 0, 1: 0.04 + 0.25 + 0.81 = 1.1 over 3 positions."""
    total, count = lost(OutcomeMSE(), logit(0.8, 0.5, 0.1), torch.tensor([1.0, 0.0, 1.0]))
    assert total.item() == pytest.approx(1.1, rel=1e-5)
    assert count.item() == 3.0


def test_binary_cross_entropy_by_hand():
    """Values 0.8, 0.5 against 1, 0: -ln 0.8 - ln 0.5. Value 0.8 against 0.25: -(0.25 ln 0.8 + 0.75 ln 0.2)."""
    total, count = lost(OutcomeBCE(), logit(0.8, 0.5), torch.tensor([1.0, 0.0]))
    assert total.item() == pytest.approx(-math.log(0.8) - math.log(0.5), rel=1e-5)
    assert count.item() == 2.0
    total, count = lost(OutcomeBCE(), logit(0.8), torch.tensor([0.25]))
    assert total.item() == pytest.approx(-(0.25 * math.log(0.8) + 0.75 * math.log(0.2)), rel=1e-5)
    assert count.item() == 1.0


def test_step_cross_entropy_by_hand():
    """Class 1 is correct. Softmax of (0, ln 3) is (1/4, 3/4); of (ln 4, 0) it is (4/5, 1/5).

    Targets 1 and 0: -ln 3/4 - ln 4/5. Soft targets 1/2 and 1/4: -(ln 3/4 + ln 1/4) / 2 - (ln 1/5 + 3 ln 4/5) / 4.
    """
    logits = torch.tensor([[0.0, math.log(3)], [math.log(4), 0.0]])
    total, count = lost(StepCrossEntropy(), logits, torch.tensor([1.0, 0.0]))
    assert total.item() == pytest.approx(-math.log(3 / 4) - math.log(4 / 5), rel=1e-5)
    assert count.item() == 2.0
    total, count = lost(StepCrossEntropy(), logits, torch.tensor([0.5, 0.25]))
    hand = -(math.log(3 / 4) + math.log(1 / 4)) / 2 - (math.log(1 / 5) + 3 * math.log(4 / 5)) / 4
    assert total.item() == pytest.approx(hand, rel=1e-5)
    assert count.item() == 2.0


def test_step_mse_by_hand():
    """(0.5 - 0.25)^2 + 3 (1 - 0.8)^2 = 0.0625 + 0.12, of four."""
    total, count = lost(StepMSE(), torch.tensor([0.5, 1.0]), torch.tensor([0.25, 0.8]), torch.tensor([1.0, 3.0]))
    assert total.item() == pytest.approx(0.1825)
    assert count.item() == 4.0


@pytest.mark.parametrize("loss", [OutcomeMSE, OutcomeBCE, StepCrossEntropy])
def test_the_loss_is_a_sum_with_its_count(loss):
    """So that parts add up: over devices, and over steps of accumulation."""
    torch.manual_seed(0)
    logits = torch.randn(7, 2) if loss is StepCrossEntropy else torch.randn(7)
    targets = torch.rand(7)
    whole = lost(loss(), logits, targets)
    parts = [lost(loss(), logits[i:j], targets[i:j]) for i, j in ((0, 3), (3, 7))]
    assert sum(total for total, _ in parts).item() == pytest.approx(whole[0].item(), rel=1e-5)
    assert [count.item() for _, count in parts] == [3.0, 4.0]
    assert whole[1].item() == 7.0
    assert whole[0].shape == whole[1].shape == ()


@pytest.mark.parametrize("loss", [OutcomeMSE, OutcomeBCE, StepCrossEntropy])
def test_half_precision_is_summed_in_full(loss):
    """2,000 positions of the same loss: bfloat16 cannot count beyond 256 by ones."""
    shape = (2000, 2) if loss is StepCrossEntropy else (2000,)
    targets = torch.ones(2000)
    total, count = lost(loss(), torch.zeros(shape, dtype=torch.bfloat16), targets)
    one = 0.25 if loss is OutcomeMSE else math.log(2)
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(2000 * one, rel=1e-4)
    assert count.item() == 2000.0


@pytest.mark.parametrize("loss", [OutcomeBCE, StepCrossEntropy])
def test_the_gradient_is_value_minus_target(loss):
    """d/dz of the cross-entropy is σ(z) - y: at value 0.8 and target 0.3, 0.5 (and -0.5 for the other class)."""
    logits = logit(0.8).requires_grad_()
    if loss is StepCrossEntropy:
        logits = torch.tensor([[0.0, math.log(4)]], requires_grad=True)
    lost(loss(), logits, torch.tensor([0.3]))[0].backward()
    expected = [[-0.5, 0.5]] if loss is StepCrossEntropy else [0.5]
    assert torch.allclose(logits.grad, torch.tensor(expected))


def test_token_loss_by_hand():
    """Logits are hidden · weightᵀ: (1, 0) gives (ln 3, 0), a probability of 3/4 for token 0; (0, 1) gives (0, 0), 1/2."""
    weight = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    hidden = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    nll = token_nll(hidden, weight, None, torch.tensor([0.0, 1.0, 1.0]))
    assert nll.tolist() == pytest.approx([-math.log(3 / 4), math.log(2), math.log(4)])
    biased = token_nll(hidden[:1], weight, torch.tensor([0.0, math.log(3)]), torch.tensor([0]))
    assert biased.tolist() == pytest.approx([math.log(2)])


@given(st.integers(1, 12), st.integers(1, 14), st.booleans(), st.booleans(), st.sampled_from([None, 2.0]))
@settings(max_examples=25)
def test_the_token_losses_do_not_depend_on_the_chunk(positions, chunk, with_bias, frozen, softcap):
    """Neither the values nor the gradients: of hidden states, matrix and bias, or of hidden states where those are frozen."""
    generator = torch.Generator().manual_seed(positions)
    hidden, weight, bias = (torch.randn(s, generator=generator) for s in ((positions, 3), (5, 3), (5,)))
    targets = torch.randint(5, (positions,), generator=generator)
    seen = []
    for size in (chunk, None):
        leaves = [hidden.clone().requires_grad_(), *(t.clone().requires_grad_(not frozen) for t in (weight, bias))]
        if not with_bias:
            leaves[2] = None
        if size is None:
            logits = F.linear(*leaves)
            logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
            nll, whole = F.cross_entropy(logits, targets, reduction="none"), logits.logsumexp(-1)
        else:
            nll = token_nll(*leaves, targets, softcap=softcap, chunk=size)
            whole = log_partition(*leaves, softcap=softcap, chunk=size)
        (nll * torch.arange(1.0, positions + 1) + whole * torch.arange(positions, 0.0, -1)).sum().backward()
        seen.append(
            [nll.detach(), whole.detach(), *(leaf.grad for leaf in leaves if leaf is not None and leaf.requires_grad)]
        )
    assert seen[0][0].shape == (positions,)
    for chunked, plain in zip(*seen, strict=True):
        torch.testing.assert_close(chunked, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_token_losses_under_autocast(frozen):
    """bfloat16 products of float32 parameters: the values and gradients of one whole product, float32 themselves."""
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(6, 4), torch.randn(5, 4), torch.randint(5, (6,))
    seen = []
    for chunk in (2, None):
        states, matrix = hidden.clone().requires_grad_(), weight.clone().requires_grad_(not frozen)
        with torch.autocast("cpu", torch.bfloat16):
            if chunk is None:
                nll = F.cross_entropy(F.linear(states, matrix).float(), targets, reduction="none")
            else:
                nll = token_nll(states, matrix, None, targets, chunk=chunk)
        (nll * torch.arange(1.0, 7.0)).sum().backward()
        seen.append([nll.detach(), states.grad, *([] if frozen else [matrix.grad])])
    for chunked, whole in zip(*seen, strict=True):
        assert chunked.dtype == torch.float32
        torch.testing.assert_close(chunked, whole, rtol=0.02, atol=0.02)


def test_no_gradient_is_made_where_none_is_asked_for():
    """In validation, and of hidden states without a gradient."""
    hidden, weight, targets = torch.randn(5, 2), torch.randn(4, 2), torch.zeros(5)
    assert not token_nll(hidden, weight, None, targets, chunk=2).requires_grad
    with torch.no_grad():
        assert not token_nll(hidden.requires_grad_(), weight, None, targets, chunk=2).requires_grad


@pytest.mark.parametrize("frozen", [True, False])
def test_no_more_than_a_chunk_of_logits_is_made_at_once(frozen, monkeypatch):
    """7 positions by 3: 3 + 3 + 1, in the forward pass, and once more in the backward pass where the matrix is trained."""
    sizes, linear = [], F.linear
    monkeypatch.setattr(F, "linear", lambda h, *rest: sizes.append(len(h)) or linear(h, *rest))
    hidden = torch.randn(7, 2, requires_grad=True)
    nll = token_nll(hidden, torch.randn(4, 2, requires_grad=not frozen), None, torch.zeros(7), chunk=3)
    assert sizes == [3, 3, 1]
    nll.sum().backward()
    assert sorted(sizes) == ([1, 3, 3] if frozen else [1, 1, 3, 3, 3, 3])


def test_a_loss_of_pairs_sees_solutions_by_hand():
    """Log-odds 2, -1, 0 of one solution, correct, incorrect, correct, and 1, 3 of another, incorrect, correct.

    Pairs: (2, -1), (0, -1) and (3, 1): log(1 + e^-3) + log(1 + e^-1) + log(1 + e^-2), of three.
    """
    logits = torch.stack([torch.zeros(5), torch.tensor([2.0, -1.0, 0.0, 1.0, 3.0])], 1)
    total, count = lost(PairwiseSteps(), logits, torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]), owner=[0, 0, 0, 1, 1])
    assert total.item() == pytest.approx(sum(math.log1p(math.exp(-gap)) for gap in (3, 1, 2)), rel=1e-5)
    assert count.item() == 3.0
