"""Score in this process, or in one process for each device."""

from __future__ import annotations

import gc
import multiprocessing
import sys
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from typing import Any, Literal

from sampling.scorers.parallel import Dtype, Neutral, ParallelScorer
from sampling.scorers.workers import LocalWorker, ProcessWorker, Stream, Worker
from stepverify.cache_size import cache_bytes
from stepverify.records import InputError

_SEARCH_GIB = 1.0


class LocalScorer(ParallelScorer):
    """Score with a verifier of the Python API on every device of this machine.

    Args:
        path: folder of the verifier, or Hub repository.
        dtype: number format of the parameters.
        devices: number of devices; ``auto`` uses every GPU, or one process without a GPU.
        device: kind or name of the device, ``cpu`` or ``cuda:1``; None takes GPUs if there are any.
        pack_tokens: tokens per forward pass on a device, with shared prefixes counted once.
        per_token: keep an outcome verifier's value at every solution token instead of the final one.
        neutral: what P(neutral) counts as.
        prefix_cache_gib: GiB of keys and values kept from call to call by each process, see
            :class:`stepverify.Verifier`; 0 for none, None for none except in a search, where it is 1.
    """

    def __init__(
        self, path: str, dtype: Dtype, devices: int | Literal["auto"], device: str | None, pack_tokens: int,
        per_token: bool = False, neutral: Neutral | None = None, prefix_cache_gib: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(path, dtype, devices, per_token, neutral)
        if pack_tokens < 1:
            raise InputError(f"pack_tokens: expected 1 or more, got {pack_tokens}")
        cache_bytes(prefix_cache_gib)
        self.device, self.pack_tokens, self.prefix_cache_gib = device, pack_tokens, prefix_cache_gib

    def keep_prefixes(self) -> None:
        """Keep up to 1 GiB of keys and values, unless ``prefix_cache_gib`` says how much."""
        if self.prefix_cache_gib is None:
            self.prefix_cache_gib = _SEARCH_GIB

    @property
    def caches_prefixes(self) -> bool:  # type: ignore[override]
        """Tell whether prefixes are kept; a model that does not support this is refused when it is loaded."""
        return bool(self.prefix_cache_gib)

    @abstractmethod
    def loader(self) -> Callable[..., Any]:
        """Return a function that loads the :class:`stepverify.Verifier` on a ``device``; it is pickled."""

    async def aclose(self) -> None:
        """End the processes, and free the memory of this one."""
        await super().aclose()
        gc.collect()
        if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # another process may load the next verifier

    @cached_property
    def places(self) -> list[str]:
        """Return the device of each process.

        With one device that is this process.
        """
        import torch

        from stepverify.device import choose_device

        count = 1 if self.devices == "auto" else self.devices
        if (kind := str(choose_device(self.device))) == "cuda":
            found = torch.cuda.device_count()
            if (count := found if self.devices == "auto" else count) > found:
                raise InputError(f"devices: {count}, but there are {found} GPUs")
            return [f"cuda:{i}" for i in range(count)]
        if count > 1 and kind != "cpu":
            raise InputError(f"devices: {count}, but device names one, {kind}")
        return [kind] * count

    def workers(self) -> list[Worker]:
        """Make the model in this process, or a process for each device."""
        import torch

        build = partial(_load, self.loader(), self.per_token, self.prefix_cache_gib)
        if len(self.places) == 1:
            return [LocalWorker(partial(build, self.places[0]))]
        threads = max(1, torch.get_num_threads() // len(self.places))
        lock = multiprocessing.get_context("spawn").Lock()
        return [
            ProcessWorker(partial(build, name, threads, lock), f"{self.path} on {name} ({i + 1} of {len(self.places)})")
            for i, name in enumerate(self.places)
        ]


def _load(
    loader: Callable[..., Any], per_token: bool, prefix_cache_gib: float | None, device: str,
    threads: int | None = None, lock: AbstractContextManager | None = None,
) -> Stream:  # fmt: skip
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading; the stage has one of its own
    if threads is not None:
        torch.set_num_threads(threads)
    with lock or nullcontext():  # weights are read into main memory, which may have room for one copy only
        verifier = loader(device=device)
    if prefix_cache_gib and verifier.prefix_cache is None:  # costs would say that prefixes are not read again
        from stepverify.models.incremental import why_not_cached

        raise InputError(
            f"{verifier.path}: prefix_cache_gib: {prefix_cache_gib}: its keys and values cannot be kept "
            f"({why_not_cached(verifier.model)}); set prefix_cache_gib: 0, with which prefixes are read again"
        )
    return partial(verifier.stream, per_token=per_token)
