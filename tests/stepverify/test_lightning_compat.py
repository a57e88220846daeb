"""Private attributes of Lightning stand in one file, and each of them is there."""

import ast
import inspect

import pytest

pytest.importorskip("torch")

from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.core.module import LightningModule
from lightning.pytorch.loops import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
from lightning.pytorch.trainer.trainer import Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader

# attribute → the class whose source sets or defines it
OWNERS = {
    "_parser": LightningCLI, "_get": LightningCLI, "_prepare_subcommand_kwargs": LightningCLI,
    "_run_subcommand": LightningCLI, "_trainer": LightningModule, "_num_ready_batches_reached": _TrainingEpochLoop,
    "_signal_connector": Trainer, "_checkpoint_connector": Trainer, "_accelerator_connector": Trainer,
    "_combined_loader": _FitLoop, "_data_fetcher": _FitLoop, "_load_state_dicts": CombinedLoader, "_restarting": _Loop,
    "_data_parallel_size": ModelParallelStrategy, "_tensor_parallel_size": ModelParallelStrategy,
    "_save_distributed_checkpoint": ModelParallelStrategy,
}  # fmt: skip


def private(path):
    """Names ``x._name`` that a file asks of something else than ``self`` or ``cls``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            found |= set() if own else {node.attr}
    return found


def test_every_private_attribute_is_listed_and_there(root):
    in_self = {"_parser", "_get"}  # of the class that LightningCLI is a base of
    assert private(root / "stepverify" / "lightning_compat.py") | in_self == OWNERS.keys()
    for name, owner in OWNERS.items():
        assert hasattr(owner, name) or f"self.{name}" in inspect.getsource(owner), f"{owner.__name__}.{name}"
    assert hasattr(_CheckpointConnector, "dump_checkpoint")


def test_no_other_file_asks_for_one(root):
    for path in (root / "stepverify").rglob("*.py"):
        if path.name != "lightning_compat.py":
            assert not private(path) & OWNERS.keys(), path
