"""Collect all uses of Lightning's private attributes.

Its next minor version may change any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy


class OpenCLI(LightningCLI):
    """Give public names to methods of LightningCLI that a subclass needs."""

    def parser_of(self, subcommand: str) -> LightningArgumentParser:
        """Return the parser of a subcommand."""
        return self._parser(subcommand)

    def trainer_settings(self) -> Any:
        """Return the configuration's entry of the trainer, with its classes instantiated."""
        return self._get(self.config_init, "trainer", default={})

    def subcommand_arguments(self, subcommand: str) -> dict[str, Any]:
        """Return the arguments of the trainer's method; a subclass may change them."""
        return super()._prepare_subcommand_kwargs(subcommand)

    def run_trainer(self, subcommand: str) -> None:
        """Call the trainer's method."""
        super()._run_subcommand(subcommand)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return self.subcommand_arguments(subcommand)

    def _run_subcommand(self, subcommand: str) -> None:
        self.run_trainer(subcommand)


def is_attached(module: lightning.LightningModule) -> bool:
    """Check whether a module has a trainer; its property raises without one."""
    return module._trainer is not None


def is_epoch_end(trainer: lightning.Trainer) -> bool:
    """Check whether the current epoch has read its last batch."""
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def stop_training(trainer: lightning.Trainer) -> None:
    """End the loops after the current step is logged, as on SIGTERM."""
    trainer._signal_connector.received_sigterm = True


def dump_checkpoint(trainer: lightning.Trainer) -> dict[str, Any]:
    """Return the state of trainer, loops, callbacks, module and optimizers."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


def restore_data(trainer: lightning.Trainer, states: Sequence[Any]) -> None:
    """Set the data's epoch, and restore the loaders' positions within it."""
    loop: Any = trainer.fit_loop
    for loader in loop._combined_loader.flattened:
        loader.sampler.set_epoch(loop.epoch_progress.current.processed)
    if not loop.epoch_loop.batch_progress.is_last_batch:
        loop._combined_loader._load_state_dicts(states)
    iter(loop._data_fetcher)


def begin_next_epoch(trainer: lightning.Trainer) -> None:
    """Start the next epoch after a checkpoint at an epoch's end.

    With ``max_steps`` Lightning treats that epoch as unfinished: it would end it again without training, and skip the
    order of the next one.
    """
    loop: Any = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop._restarting = loop.epoch_loop.restarting = False
        loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()


def cluster_environment(trainer: lightning.Trainer) -> ClusterEnvironment:
    """Return the environment that starts and numbers the processes."""
    return trainer._accelerator_connector.cluster_environment


def fill_mesh(strategy: ModelParallelStrategy, count: int) -> tuple[int, int]:
    """Replace ``auto`` sizes by one data-parallel dimension; return both sizes."""
    if strategy._data_parallel_size == "auto":
        strategy._data_parallel_size = count
    if strategy._tensor_parallel_size == "auto":
        strategy._tensor_parallel_size = 1
    return strategy._data_parallel_size, strategy._tensor_parallel_size


def saves_shards(strategy: Strategy) -> bool:
    """Check whether each process writes its own shard of a checkpoint."""
    return isinstance(strategy, ModelParallelStrategy) and strategy._save_distributed_checkpoint
