"""How often a fit logs."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from stepverify.monitoring import LoggingInterval


@pytest.mark.parametrize(
    ("steps", "interval"),
    [(1, 1), (8, 1), (39, 1), (40, 2), (110, 5), (199, 9), (200, 10), (10_000, 10), (math.inf, 10)],
)
def test_a_short_fit_logs_twenty_times_or_at_every_step(steps, interval):
    trainer = SimpleNamespace(estimated_stepping_batches=steps, log_every_n_steps=50)
    LoggingInterval().on_train_start(trainer, None)
    assert trainer.log_every_n_steps == interval
    assert steps < 20 or steps / trainer.log_every_n_steps >= 20
