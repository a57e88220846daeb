"""Choose the device that a model is put on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from stepverify.records import InputError

NO_APPLE = "Apple GPUs have no 64-bit floats, which sampling, metrics and the check of models need"


def choose_device(device: str | torch.device | None) -> torch.device:
    """Choose a device: the given one, a CUDA GPU, or the CPU.

    None takes a GPU if there is one.

    Raises:
        InputError: an unknown device, a GPU where there is none, or an Apple GPU.
    """
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise InputError(f"device: {device}: {str(error).splitlines()[0]}") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device: {device}: PyTorch finds no GPU on this machine; use cpu, or leave it out")
    if chosen.type == "mps":
        raise InputError(f"device: {device}: {NO_APPLE}; use cpu")
    return chosen


def multiplies_in_bfloat16() -> bool:
    """Check whether this CPU has products of bfloat16 (AMX, AVX-512 BF16)."""
    has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of torch do not say
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))
