"""Settings of a fit, flat; what is logged with them is in test_fit_output.py."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from stepverify.monitoring.hyperparameters import hyperparameters

CONFIG = {
    "seed_everything": 3,
    "model": {
        "class_path": "stepverify.modules.ProcessRewardModel",
        "init_args": {
            "backbone": {"path": "some/model", "lora": {"rank": 16}, "compile": False},
            "template": None,
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001, "betas": [0.9, 0.98]}},
        },
    },
    "data": {"train": {"class_path": "stepverify.readers.Solutions", "init_args": {"path": "a"}}, "test": None},
    "trainer": {"max_epochs": 2, "callbacks": [{"class_path": "Checkpoints"}], "precision": "32-true", "barebones": 0},
}


def test_settings_are_named_as_on_the_command_line_without_init_args():
    """Classes by their own name, lists as JSON; nothing that is not set, and of the trainer what decides a fit."""
    assert hyperparameters(CONFIG) == {
        "seed_everything": 3,
        "model": "ProcessRewardModel",
        "model.backbone.path": "some/model",
        "model.backbone.lora.rank": 16,
        "model.backbone.compile": False,
        "model.optimizer": "AdamW",
        "model.optimizer.lr": 0.001,
        "model.optimizer.betas": "[0.9, 0.98]",
        "data.train": "Solutions",
        "data.train.path": "a",
        "trainer.max_epochs": 2,
        "trainer.precision": "32-true",
    }
