"""Every private attribute of Lightning that is used: the next minor version may change any of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy


class OpenCLI(LightningCLI):
    """LightningCLI with public names for what a subclass needs of it."""

    def parser_of(self, subcommand: str) -> LightningArgumentParser:
        """Return the parser of a subcommand."""
        return self._parser(subcommand)

    def trainer_settings(self) -> Any:
        """Return the configuration's entry of the trainer, its classes built."""
        return self._get(self.config_init, "trainer", default={})

    def subcommand_arguments(self, subcommand: str) -> dict[str, Any]:
        """Return what the trainer's method is called with; a subclass changes it."""
        return super()._prepare_subcommand_kwargs(subcommand)

    def run_trainer(self, subcommand: str) -> None:
        """Call the trainer's method."""
        super()._run_subcommand(subcommand)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return self.subcommand_arguments(subcommand)

    def _run_subcommand(self, subcommand: str) -> None:
        self.run_trainer(subcommand)


def is_attached(module: lightning.LightningModule) -> bool:
    """Tell whether a module has a trainer; its property raises where there is none."""
    return module._trainer is not None


def is_epoch_end(trainer: lightning.Trainer) -> bool:
    """Tell whether the running epoch has read its last batch."""
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def stop_training(trainer: lightning.Trainer) -> None:
    """End the loops when the running step has been logged, as after SIGTERM."""
    trainer._signal_connector.received_sigterm = True


def dump_checkpoint(trainer: lightning.Trainer) -> dict[str, Any]:
    """Return the state of trainer, loops, callbacks, module and optimizers."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


def restore_data(trainer: lightning.Trainer, states: Sequence[Any]) -> None:
    """Set the epoch of the training data, and go on within it where its loaders stood."""
    loop: Any = trainer.fit_loop
    for loader in loop._combined_loader.flattened:
        loader.sampler.set_epoch(loop.epoch_progress.current.processed)
    if not loop.epoch_loop.batch_progress.is_last_batch:
        loop._combined_loader._load_state_dicts(states)
    iter(loop._data_fetcher)


def begin_next_epoch(trainer: lightning.Trainer) -> None:
    """Begin the next epoch where the checkpoint was saved at the end of one.

    With ``max_steps`` Lightning takes that for an unfinished epoch: it would end it once more, without training, and
    leave out the order of the next one.
    """
    loop: Any = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop._restarting = loop.epoch_loop.restarting = False
        loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()


def cluster_environment(trainer: lightning.Trainer) -> ClusterEnvironment:
    """Return who starts the processes, and numbers them."""
    return trainer._accelerator_connector.cluster_environment


def fill_mesh(strategy: ModelParallelStrategy, count: int) -> tuple[int, int]:
    """Replace ``auto`` by one data-parallel row of so many devices; return the sizes of both dimensions."""
    if strategy._data_parallel_size == "auto":
        strategy._data_parallel_size = count
    if strategy._tensor_parallel_size == "auto":
        strategy._tensor_parallel_size = 1
    return strategy._data_parallel_size, strategy._tensor_parallel_size


def saves_shards(strategy: Strategy) -> bool:
    """Tell whether each process writes its own shard of a checkpoint into a folder."""
    return isinstance(strategy, ModelParallelStrategy) and strategy._save_distributed_checkpoint
