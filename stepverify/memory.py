"""Measure a process's memory: need of a training step, and capacity."""

from __future__ import annotations

import os
import resource
import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor

GIB = 2**30
_UNLIMITED = 1 << 60


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Hold the bytes that one process needs in a training step.

    Attributes:
        resident: held before the first step: parameters, and whatever else the process has.
        gradients: of all trained parameters.
        largest_gradient: of one parameter.
        states: optimizer states that are not resident yet.
        activations: kept for the backward pass and made during it.
        accumulated: gradients of earlier batches are held throughout.
    """

    resident: int
    gradients: int
    largest_gradient: int
    states: int
    activations: int
    accumulated: bool = False

    def peak(self) -> int:
        """Return the largest number of bytes held at once.

        Activations are freed as gradients are made, layer by layer: their joint maximum is the larger of the two plus
        one more gradient, unless earlier gradients are already held.
        """
        both = self.gradients + self.activations
        if not self.accumulated:
            both = min(both, max(self.gradients, self.activations) + self.largest_gradient)
        return self.resident + self.states + both

    def describe(self) -> str:
        """List the parts and the peak."""
        return (
            f"{size(self.resident)} resident, {size(self.gradients)} gradients, {size(self.states)} optimizer states, "
            f"{size(self.activations)} activations: {size(self.peak())} at the peak"
        )


def extrapolate(points: Iterable[tuple[int, int]], tokens: int, *, quadratic: bool = False) -> int:
    """Predict the bytes of a batch from those of smaller ones.

    Args:
        points: (tokens, bytes) of each, in ascending order.
        tokens: tokens of the larger batch.
        quadratic: the bytes have a part that grows with the square of the tokens, such as a whole attention matrix.
    """
    (few, small), (many, large) = points
    if few == many:
        return round(large * (tokens / many) ** (1 + quadratic))
    if quadratic:
        curve = max(0.0, (large / many - small / few) / (many - few))
        return round((large / many + curve * (tokens - many)) * tokens)
    return round(large + max(0.0, (large - small) / (many - few)) * (tokens - many))


def bytes_of(tensors: Iterable[Tensor]) -> list[int]:
    """Count this process's bytes of each tensor."""
    local = (t.to_local() if isinstance(t, DTensor) else t for t in tensors)
    return [t.numel() * t.element_size() for t in local]


def state_bytes(optimizer: torch.optim.Optimizer, factory: Callable[[Any], torch.optim.Optimizer]) -> int:
    """Count the bytes of optimizer states that the first step will create.

    Args:
        optimizer: optimizer of the training; states that it already holds are not counted.
        factory: creates one like it, to be tried on a small matrix.
    """
    missing = [
        p for group in optimizer.param_groups for p in group["params"] if p not in optimizer.state and p.requires_grad
    ]
    if not missing:
        return 0
    local = missing[0].to_local() if isinstance(missing[0], DTensor) else missing[0]
    probe = nn.Parameter(torch.zeros(64, 64, dtype=local.dtype, device=local.device))
    trial = factory([{"params": [probe]}])
    probe.grad = torch.zeros_like(probe)
    trial.step()
    made = sum(bytes_of(v for v in trial.state[probe].values() if isinstance(v, Tensor) and v.numel() > 1))
    return round(sum(bytes_of(missing)) * made / bytes_of([probe])[0])


class CudaMemory:
    """Measure a CUDA device by torch's allocator.

    Args:
        device: device of this process.
    """

    covers_backward = True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def name(self) -> str:
        """Name the device and its memory."""
        facts = torch.cuda.get_device_properties(self.device)
        return f"{facts.name} ({size(facts.total_memory)})"

    def in_use(self) -> int:
        """Return the bytes of this process's tensors."""
        return torch.cuda.memory_allocated(self.device)

    def capacity(self) -> int:
        """Return the bytes that this process's tensors can take.

        Other processes and libraries hold the rest.
        """
        return torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)

    def added(self, forward: Callable[[], Tensor]) -> int:
        """Run a forward and a backward pass; return their peak bytes."""
        before = self.in_use()
        torch.cuda.reset_peak_memory_stats(self.device)
        forward().backward()
        return torch.cuda.max_memory_allocated(self.device) - before


class HostMemory:
    """Measure the host's memory, divided equally among its processes.

    An allocator that keeps freed memory hides peaks, so the bytes kept for the backward pass are counted instead.

    Args:
        num_processes: processes of this run on the host.
    """

    covers_backward = False

    def __init__(self, num_processes: int) -> None:
        self.num_processes = num_processes

    def name(self) -> str:
        """Name the device."""
        return "the host" if self.num_processes == 1 else f"the host for each of {self.num_processes} processes"

    def in_use(self) -> int:
        """Return the bytes of this process."""
        statm = Path("/proc/self/statm")
        if not statm.exists():
            return peak_bytes(torch.device("cpu"))
        return int(statm.read_text(encoding="utf-8").split()[1]) * resource.getpagesize()

    def capacity(self) -> int:
        """Return the bytes that this process can take.

        No limit is known without Linux's figures.
        """
        return self.in_use() + available_on_host() // self.num_processes

    def added(self, forward: Callable[[], Tensor]) -> int:
        """Run a forward and a backward pass; return the bytes kept between."""
        kept = SavedBytes()
        with kept:
            loss = forward()
        loss.backward()
        return kept.total


class SavedBytes(saved_tensors_hooks):
    """Count the bytes that forward passes keep for the backward pass.

    Each storage counts once, parameters do not count.

    Attributes:
        total: peak number of bytes.
    """

    _counting: ClassVar[list[SavedBytes]] = []

    def __init__(self) -> None:
        super().__init__(self._pack, lambda saved: saved)
        self.total = self._now = 0
        self._known: set[int] = set()

    def __enter__(self) -> None:
        super().__enter__()
        self._counting.append(self)

    def __exit__(self, *error: object) -> None:
        self._counting.remove(self)
        super().__exit__(*error)

    @classmethod
    def note(cls, kept: Tensor) -> None:
        """Count a tensor that is kept by other means, wherever bytes are being counted."""
        for counter in cls._counting:
            counter._pack(kept)

    def _pack(self, saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage._cdata not in self._known and not any(isinstance(t, nn.Parameter) for t in (saved, saved._base)):
            self._known.add(storage._cdata)
            self._now += storage.nbytes()
            self.total = max(self.total, self._now)
            weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        return saved

    def _free(self, key: int, count: int) -> None:
        self._known.discard(key)
        self._now -= count


def available_on_host(root: Path = Path("/")) -> int:
    """Return the bytes available on the host or in the control group.

    Args:
        root: root of the file system.
    """
    found = [_UNLIMITED]
    meminfo = root / "proc/meminfo"
    if meminfo.exists():
        lines = meminfo.read_text(encoding="utf-8").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for limit, usage, reclaimable in _control_groups(root):
        if limit.exists() and (given := limit.read_text(encoding="utf-8").strip()) != "max":
            used = int(usage.read_text(encoding="utf-8"))
            stat = reclaimable.read_text(encoding="utf-8").splitlines() if reclaimable.exists() else []
            cached = sum(int(line.split()[1]) for line in stat if line.startswith(("inactive_file ", "active_file ")))
            found.append(int(given) - used + cached)
    return max(0, min(found))


def _control_groups(root: Path) -> Iterable[tuple[Path, Path, Path]]:
    """Yield the limit, usage and statistics files of this process's control groups.

    Versions 2 and 1.
    """
    listed = root / "proc/self/cgroup"
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if not kinds:
            home, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "memory.stat")
        elif "memory" in kinds.split(","):
            home = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
        else:
            continue
        # The limits of all parent groups apply too. In a container the group may be at the top.
        inner = home / path.strip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(home):
                yield folder / names[0], folder / names[1], folder / names[2]


def peak_bytes(device: torch.device) -> int:
    """Return the peak bytes of a device's tensors.

    On the CPU, those of this process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def is_out_of_memory(error: BaseException) -> bool:
    """Check whether an error means that memory ran out."""
    refused = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in refused)
    )


def describe_use(device: torch.device) -> str:
    """Name a device, its peak and its total memory."""
    peak = size(peak_bytes(device))
    if device.type != "cuda":
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return f"cpu: {peak} of this process at the peak, {size(pages)} in all"
    facts = torch.cuda.get_device_properties(device)
    return f"{device} ({facts.name}): {peak} of tensors at the peak, {size(facts.total_memory)} in all"


def size(count: int) -> str:
    """Format bytes in GiB, or in MiB below one."""
    return f"{count / GIB:,.1f} GiB" if count >= GIB else f"{count / 2**20:,.1f} MiB"
