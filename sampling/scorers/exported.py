"""Exported verifiers, scored by the code that trained them."""

from __future__ import annotations

import gc
import multiprocessing
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from typing import Any, Literal

from sampling.scorers.base import Scorer, fingerprint_export
from sampling.scorers.workers import LocalWorker, Pool, ProcessWorker, Stream, Worker
from stepverify.hub import local_export
from stepverify.records import InputError, Solution

Neutral = Literal["positive", "negative"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class ExportedVerifier(Scorer):
    """An exported outcome verifier or process reward model, on every device of this machine.

    On one device it lives in this process, on several in a process each. Values do not depend on the number of devices.

    Args:
        path: folder of the export, or id of a hub repository.
        dtype: number format of the parameters; ``auto`` is that of the training.
        devices: how many to use; ``auto`` is every GPU, or one process without a GPU.
        device: kind or name of the device, ``cpu`` or ``cuda:1``; None takes GPUs where there are any.
        pack_tokens: tokens read at the same time on a device, shared prefixes counted once.
        per_token: give an outcome verifier's value at every solution token instead of the last one.
        neutral: what P(neutral) counts as in the values of a process reward model with a neutral label; None takes
            what the export says.
    """

    def __init__(
        self,
        path: str,
        dtype: Dtype = "auto",
        devices: int | Literal["auto"] = "auto",
        device: str | None = None,
        pack_tokens: int = 8192,
        per_token: bool = False,
        neutral: Neutral | None = None,
    ) -> None:
        if devices != "auto" and devices < 1:
            raise InputError(f"devices: expected auto, or 1 or more, got {devices}")
        if pack_tokens < 1:
            raise InputError(f"pack_tokens: expected 1 or more, got {pack_tokens}")
        self.path, self.dtype, self.devices, self.device = path, dtype, devices, device
        self.pack_tokens, self.per_token, self.neutral = pack_tokens, per_token, neutral
        self._pool: Pool | None = None

    @cached_property
    def export(self) -> str:  # type: ignore[override]
        """The export's local folder."""
        return local_export(self.path)

    def identity(self) -> dict[str, Any]:
        """The export's files, and what else decides its values."""
        asked = {"dtype": self.dtype, "per_token": self.per_token, "neutral": self.neutral}
        return {"scorer": "exported", "export": fingerprint_export(self.export), **asked}

    @property
    def concurrency(self) -> int:  # type: ignore[override]
        """Two calls for each device: one is read, one waits."""
        return 2 * len(self._names)

    async def score(self, solutions: Sequence[Solution]) -> list[list[float]]:
        """Score solutions and prefixes, in the order given."""
        if self._pool is None:
            self._pool = Pool(self._workers())
        return await self._pool.score(solutions)

    def token_texts(self, solution: Solution) -> list[str]:
        """Return the texts of all solution tokens, where an outcome verifier is read at every one."""
        if not self.per_token or (encoder := self._token_encoder) is None:
            return []
        return encoder.token_texts(solution)

    async def aclose(self) -> None:
        """End the processes, and free the memory of this one."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
            gc.collect()
            if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
                torch.cuda.empty_cache()  # a verifier in another process may be next

    @cached_property
    def _token_encoder(self) -> Any:
        from stepverify.models import load_encoder

        encoder, facts = load_encoder(self.export)
        return encoder if facts["objective"] == "outcome" else None

    @cached_property
    def _names(self) -> list[str]:
        """A device for each process."""
        import torch

        count = 1 if self.devices == "auto" else self.devices
        if (kind := self.device or ("cuda" if torch.cuda.is_available() else "cpu")) == "cuda":
            found = torch.cuda.device_count()
            if (count := found if self.devices == "auto" else count) > found:
                raise InputError(f"devices: {count}, but there are {found} GPUs")
            return [f"cuda:{i}" for i in range(count)]
        if count > 1 and kind != "cpu":
            raise InputError(f"devices: {count}, but device names one, {kind}")
        return [kind] * count

    def _workers(self) -> list[Worker]:
        import torch

        build = partial(_load, self.export, self.dtype, self.neutral, self.pack_tokens, self.per_token)
        if len(self._names) == 1:
            return [LocalWorker(partial(build, self._names[0]))]
        threads = max(1, torch.get_num_threads() // len(self._names))
        lock = multiprocessing.get_context("spawn").Lock()
        return [
            ProcessWorker(partial(build, name, threads, lock), f"{self.path} on {name} ({i + 1} of {len(self._names)})")
            for i, name in enumerate(self._names)
        ]


def _load(
    path: str, dtype: str, neutral: Neutral | None, pack_tokens: int, per_token: bool, device: str,
    threads: int | None = None, lock: AbstractContextManager | None = None,
) -> Stream:  # fmt: skip
    import torch

    from stepverify.verifier import Verifier

    if threads is not None:
        torch.set_num_threads(threads)
    with lock or nullcontext():  # weights pass through the memory of the machine, which may hold a model once
        verifier = Verifier.from_pretrained(path, device=device, dtype=dtype, neutral=neutral, pack_tokens=pack_tokens)
    return partial(verifier.stream, per_token=per_token)
