"""Resolve trainer settings for the devices: accelerator, precision, FSDP2 mesh."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.accelerators import AcceleratorRegistry, CUDAAccelerator, MPSAccelerator
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from stepverify.device import NO_APPLE
from stepverify.lightning_compat import fill_mesh
from stepverify.records import InputError
from stepverify.suggest import meant


def choose_accelerator(trainer: Any) -> None:
    """Use the CPU instead of an Apple GPU.

    Lightning's ``auto`` would choose the GPU.

    Args:
        trainer: the configuration's entry, changed in place.

    Raises:
        InputError: the Apple GPU was requested, a GPU where there is none, or an unknown accelerator.
    """
    wanted = trainer.accelerator
    if isinstance(wanted, str) and wanted not in (
        known := {"auto", "gpu", *AcceleratorRegistry.available_accelerators()}
    ):
        raise InputError(f"trainer.accelerator: {wanted!r}: no such accelerator; {meant(wanted, known)}")
    if wanted in ("gpu", "cuda") and not (CUDAAccelerator.is_available() or MPSAccelerator.is_available()):
        raise InputError(
            f"trainer.accelerator: {wanted}: PyTorch finds no GPU on this machine; set it to cpu, or to auto, which "
            "takes a GPU where there is one"
        )
    if not MPSAccelerator.is_available() or CUDAAccelerator.is_available():
        return
    if trainer.accelerator == "auto":
        trainer.accelerator = "cpu"
        rank_zero_info(f"trainer.accelerator: auto is the CPU here: {NO_APPLE}")
    elif trainer.accelerator in ("mps", "gpu"):
        raise InputError(f"trainer.accelerator: {trainer.accelerator}: {NO_APPLE}; use cpu")


def check_settings(trainer: Any) -> None:
    """Refuse settings that would replace the batches of :mod:`stepverify.data.batching`.

    Args:
        trainer: the configuration's entry.

    Raises:
        InputError: ``overfit_batches`` is set.
    """
    if trainer.overfit_batches:
        raise InputError(
            f"trainer.overfit_batches: {trainer.overfit_batches}: it replaces batches by examples; "
            "to train on a few solutions, give the reader of data.train a limit"
        )


def settle_precision(trainer: Any, dtype: str, earlier: str | None) -> None:
    """Choose ``trainer.precision`` if it is not configured, and log the choice.

    The default is ``bf16-mixed`` on NVIDIA GPUs since Ampere and on AMD GPUs: parameters, gradients and optimizer in
    float32, matrix products in bfloat16. Elsewhere it is ``32-true``. Products of float32 are computed in float32,
    without TF32, which has 10 bits of fraction; the environment variable ``TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1`` allows
    TF32.

    Args:
        trainer: the configuration's entry; changed in place, so the saved configuration has the value in effect.
        dtype: dtype of the parameters.
        earlier: precision of the run that is resumed, used if the configuration sets none.
    """
    if _has_precision(trainer.plugins):
        return
    if trainer.precision is not None:
        if earlier is not None and str(earlier) != str(trainer.precision):
            rank_zero_warn(f"trainer.precision: {trainer.precision} from here on, {earlier} before: losses differ")
        return
    if earlier is not None:
        trainer.precision, reason = earlier, "as in the run that this one resumes"
    else:
        trainer.precision, reason = _default_precision(trainer.accelerator, dtype)
    if reason:
        rank_zero_info(f"precision: {trainer.precision} ({reason}; set trainer.precision to change it)")


def _default_precision(accelerator: Any, dtype: str) -> tuple[str, str]:
    """Return the default precision, and a reason if it should be logged."""
    name = accelerator if isinstance(accelerator, str) else str(getattr(accelerator, "class_path", accelerator))
    if name.rpartition(".")[2].lower() not in ("auto", "gpu", "cuda", "cudaaccelerator") or not (cards := _cards()):
        return "32-true", ""
    if dtype == "float16":
        return "32-true", "bfloat16 products of float16 weights would lose 3 bits"
    old = [card for card, capability in cards if capability < (8, 0)]
    if old:
        return "32-true", f"{old[0]} has no bfloat16 products; 16-mixed is faster there"
    return "bf16-mixed", "the default on this GPU"


def _cards() -> list[tuple[str, tuple[int, int]]]:
    """List name and compute capability of each CUDA or ROCm GPU."""
    if not torch.cuda.is_available():
        return []
    numbers = range(torch.cuda.device_count())
    return [(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)) for i in numbers]


def _has_precision(plugins: Any) -> bool:
    """Check whether a plugin sets the precision."""
    listed = plugins if isinstance(plugins, list) else [plugins]
    return any("Precision" in str(getattr(plugin, "class_path", type(plugin).__name__)) for plugin in listed)


def settle_mesh(trainer: lightning.Trainer) -> None:
    """Make the mesh of FSDP2 one data-parallel dimension over all devices.

    ``data_parallel_size: auto`` becomes the number of devices on all machines, ``tensor_parallel_size: auto`` becomes
    1; Lightning would set them to the number of machines and to the devices on each.

    Raises:
        InputError: sizes that do not match the devices, or tensor parallelism.
    """
    strategy: Any = trainer.strategy
    if not isinstance(strategy, ModelParallelStrategy):
        return
    count = trainer.num_devices * trainer.num_nodes
    sizes = fill_mesh(strategy, count)
    if sizes != (count, 1):
        raise InputError(
            f"trainer.strategy: data_parallel_size: {sizes[0]} and tensor_parallel_size: {sizes[1]} "
            f"on {count} devices; set data_parallel_size: auto and tensor_parallel_size: 1"
        )
