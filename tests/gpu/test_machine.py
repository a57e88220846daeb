"""The card, and what its bfloat16 products reach: the measure of the throughput below. Budget: 10 s."""

from __future__ import annotations

import importlib.metadata
import platform
import time

import pytest
import torch

pytestmark = pytest.mark.gpu


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


@pytest.mark.seconds(60)  # the first one to touch the card
def test_the_machine(device, record):
    """Name, memory, versions; the product of two 8192 × 8192 matrices in bfloat16, median of 10 (256 on a CPU)."""
    facts = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    facts |= {name: version(name) for name in ("transformers", "lightning", "peft", "vllm", "trl")}
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        facts |= {
            "card": card.name, "capability": f"{card.major}.{card.minor}", "gib": card.total_memory / 2**30,
            "cudnn": torch.backends.cudnn.version(), "nccl": ".".join(map(str, torch.cuda.nccl.version())),
            "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
        }  # fmt: skip
    size, seconds = (8192 if device == "cuda" else 256), []
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(13):
        synchronize(device)
        start = time.perf_counter()
        product = a @ b
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    assert product.isfinite().all()
    record("machine", **facts)
    record("bfloat16 product", size=size, tflops=2 * size**3 / sorted(seconds[3:])[5] / 1e12)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
