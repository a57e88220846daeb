"""The schedule of the learning rate."""

import pytest
import torch

from stepverify.modules.optimization import Optimization


def factor(decay, step):
    return Optimization(torch.optim.AdamW, 0.1, decay).learning_rate_factor(step, 100)


def test_learning_rate_schedule():
    """Warm-up over 10 of 100 steps, then a line to zero: 1/10, 1, 1/2 at the middle of what is left, 0."""
    assert [factor("linear", step) for step in (0, 9, 10, 55, 100)] == [0.1, 1.0, 1.0, 0.5, 0.0]
    assert factor("cosine", 55) == pytest.approx(0.5)
    assert factor("constant", 99) == 1.0
