"""Settings of the trainer that would fail or give other results on these devices, refused before a model is loaded."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info

from stepverify.records import InputError


def choose_accelerator(trainer: Any) -> None:
    """Take the CPU in place of an Apple GPU, which Lightning's ``auto`` would choose.

    Args:
        trainer: the configuration's entry, which is changed.

    Raises:
        InputError: the Apple GPU is asked for.
    """
    if not MPSAccelerator.is_available() or CUDAAccelerator.is_available():
        return
    reason = "Apple GPUs have no 64-bit floats, which models are examined and metrics computed with"
    if trainer.accelerator == "auto":
        trainer.accelerator = "cpu"
        rank_zero_info(f"trainer.accelerator: auto is the CPU here: {reason}")
    elif trainer.accelerator in ("mps", "gpu"):
        raise InputError(f"trainer.accelerator: {trainer.accelerator}: {reason}; use cpu")


def check_settings(trainer: Any) -> None:
    """Refuse what replaces the batches of :mod:`stepverify.data.batching`.

    Args:
        trainer: the configuration's entry.

    Raises:
        InputError: ``overfit_batches``.
    """
    if trainer.overfit_batches:
        raise InputError(
            f"trainer.overfit_batches: {trainer.overfit_batches}: it reads examples in place of batches; "
            "to train on a few solutions, give the reader of data.train a limit"
        )


def check_mesh(trainer: lightning.Trainer, strategy: Any) -> None:
    """Refuse a mesh of FSDP2 that is not one data-parallel row of all devices.

    Args:
        trainer: with its devices.
        strategy: the configuration's entry.

    Raises:
        InputError: sizes that do not match the devices, or tensor parallelism.
    """
    if not isinstance(trainer.strategy, ModelParallelStrategy):
        return
    count = trainer.num_devices * trainer.num_nodes
    arguments = getattr(strategy, "init_args", None) or {}
    sizes = [arguments.get(f"{kind}_parallel_size", "auto") for kind in ("data", "tensor")]
    if sizes != [count, 1]:
        raise InputError(
            f"trainer.strategy: data_parallel_size: {sizes[0]} and tensor_parallel_size: {sizes[1]} "
            f"on {count} devices; set data_parallel_size: {count} and tensor_parallel_size: 1"
        )
