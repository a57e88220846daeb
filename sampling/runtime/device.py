"""Which device a model is put on."""

from __future__ import annotations

from stepverify.records import InputError


def choose_device(device: str | None) -> str:
    """Choose a device: the one asked for, else a CUDA GPU where there is one, else the CPU.

    Raises:
        InputError: an Apple GPU, which has no 64-bit floats to sample with.
    """
    if device is None:
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.partition(":")[0] == "mps":
        raise InputError(f"device: {device}: Apple GPUs have no 64-bit floats, which sampling needs; use cpu")
    return device
