"""A training step leaves the device alone: nothing is made on the host, and nothing of the device is waited for.

On torch's ``meta`` device, whose tensors hold nothing: an operator that mixes it with the CPU fails, and so does every
``.item()``, ``.tolist()`` or mask of unknown size, at each of which a program waits for a GPU. (Rows with padding are
waited for once a batch: transformers asks whether a mask has any.)
"""

from __future__ import annotations

import pytest
import torch

from tests.gpu.work import OBJECTIVES, batch_of, built


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("attention", ["paths", "sdpa"])
def test_forward_and_backward_ask_nothing_of_the_device(objective, attention, tiny_model_dir):
    module = built(objective, str(tiny_model_dir), "cpu", attention=attention)
    batch = batch_of(objective, module).to("meta")
    model = module.model.to("meta")
    outputs, nll = model(batch)
    total, count = module.loss(outputs, batch.scored, module.model)
    loss = total / batch.loss_denominators[0] + (
        0.0 if nll is None else (nll * batch.lm.weights).sum() / batch.loss_denominators[1]
    )
    loss.backward()
    assert loss.device.type == count.device.type == "meta"
    # Moved to meta, a tied output matrix is one of its own, which not every objective reads.
    grads = [p.grad for name, p in model.named_parameters() if not name.endswith("lm_head.weight")]
    assert all(grad is not None and grad.device.type == "meta" for grad in grads)


def test_a_step_of_an_objective_is_seen_to_wait():
    """The test above can fail: torch refuses each of these on ``meta``."""
    x = torch.ones(3, device="meta")
    for ask in (lambda: x.sum().item(), x.tolist, lambda: x[x > 0], lambda: x + torch.ones(3)):
        with pytest.raises((RuntimeError, NotImplementedError)):
            ask()
