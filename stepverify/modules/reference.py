"""Compute the reference's log-probabilities once, and keep them with the encoded examples."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from stepverify import lightning_compat
from stepverify.data.arrays import Unwritable
from stepverify.data.batch import collate
from stepverify.data.cache import cache_folder, find, find_or_build
from stepverify.data.fingerprint import key_of_reference
from stepverify.data.packing import to_score
from stepverify.data.reference import LogProbs, write_log_probs
from stepverify.data.store import ExampleStore
from stepverify.models import ImplicitModel
from stepverify.models.files import return_freed_memory
from stepverify.models.reference import Reference
from stepverify.records import InputError

if TYPE_CHECKING:
    from stepverify.modules.base import StepModule

_SECONDS = 30.0  # between two lines of progress
_REDUCED = 1 << 24  # values that are summed over ranks at the same time


def attach_reference(module: StepModule, reference: Reference, load: Callable[[], ImplicitModel]) -> None:
    """Give all examples of a run the log-probabilities of a reference model.

    Those of earlier runs are read from the cache. Each rank computes its part of the others, and all ranks get all.

    Args:
        module: with the trainer and its data; without a trainer nothing is done.
        reference: named by its weights.
        load: gives the model; called once, and only if something is to be computed.

    Raises:
        InputError: log-probabilities that are not finite, or no room on any disk.
    """
    if not lightning_compat.is_attached(module):
        return
    from stepverify.callbacks.together import any_rank, together  # callbacks import modules

    trainer, model = module.trainer, None
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    described = {
        "digest": reference.digest, "dtype": module.backbone_source.dtype, "precision": str(trainer.precision),
        "sharded": module.device_mesh is not None, "attention": module.backbone_source.attention,
    }  # fmt: skip
    root = cache_folder(data.cache)
    for name, store in data.examples.items():
        if store.has_reference:
            continue
        folder = root / key_of_reference(store.table, described) if root else None
        found = find(folder, LogProbs) if folder else None
        where = f"read from {folder}"
        if any_rank(trainer, found is None)[0]:
            model = model or load()
            # A sharded model's passes are collective: a rank that fails cannot tell the others in between.
            with nullcontext() if module.device_mesh is not None else together(trainer):
                values = _own_part(module, model, store, name)
            values = _sum(trainer, values)
            with together(trainer):
                found, where = _keep(values, folder, name)
        assert found is not None
        store.attach(found)
        rank_zero_info(
            f"{name}: {len(store.table):,} solutions have log-probabilities under the reference {reference.path}; "
            f"{where}"
        )
    if model is not None:
        del model  # unless it is the policy, nobody holds it any more
        gc.collect()
        return_freed_memory()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _own_part(module: StepModule, model: ImplicitModel, store: ExampleStore, name: str) -> np.ndarray:
    """Compute this rank's values of the positions of all rows; those of other ranks are 0."""
    trainer, table = module.trainer, store.table
    device, rank = trainer.strategy.root_device, trainer.global_rank
    trainer.precision_plugin.convert_module(model)
    if module.device_mesh is None:
        model.to(device)
    shared = model.packs(int(store.lengths.max()))
    budget: int = trainer.datamodule.eval_pack_tokens  # type: ignore[attr-defined]
    batches = to_score(store.sequences, store.groups.tolist(), budget, shared)
    own = batches[rank :: trainer.world_size]
    values = np.zeros(table.span("positions", len(table) - 1).stop, np.float32)
    progress = _Progress(name, sum(map(len, own)))
    passes = len(own) if module.device_mesh is None else -(-len(batches) // trainer.world_size)
    for number in range(passes):
        is_own = number < len(own)
        indices = own[number] if is_own else batches[0]  # all ranks of a sharded model make as many passes
        batch = collate([store[i] for i in indices], shared=shared, pad_to=module.pad_to).to(device)
        with torch.no_grad(), model.as_reference(), trainer.precision_plugin.val_step_context():
            found = batch.split(model.log_probs(batch))
        if is_own:
            for i, along in zip(indices.tolist(), found, strict=True):
                values[table.span("positions", i)] = along
            progress.add(len(indices), batch.num_tokens)
    if not np.isfinite(values).all():
        raise InputError(f"reference: its log-probabilities of {name} are not finite (NaN or infinite)")
    return values


def _sum(trainer: lightning.Trainer, values: np.ndarray) -> np.ndarray:
    """Add up the parts of all ranks."""
    for start in range(0, len(values), _REDUCED) if trainer.world_size > 1 else ():
        part = torch.from_numpy(values[start : start + _REDUCED]).to(trainer.strategy.root_device)
        values[start : start + _REDUCED] = trainer.strategy.reduce(part, reduce_op="sum").cpu().numpy()
    return values


def _keep(values: np.ndarray, folder: Path | None, name: str) -> tuple[LogProbs, str]:
    """Write values into a folder of the cache; into a temporary one where there is none, or no room."""
    if folder is not None:
        try:
            made, _ = find_or_build(
                folder, lambda draft: write_log_probs(draft, values), lambda found: None, name, LogProbs
            )
            return made, f"kept in {folder}"
        except (OSError, Unwritable) as error:
            said = getattr(error, "strerror", None) or error
            rank_zero_warn(
                f"data.cache: {folder.parent}: {said}; log-probabilities of {name} are kept for this run only"
            )
    temporary = Path(tempfile.mkdtemp(prefix="stepverify-"))
    try:
        write_log_probs(temporary, values)
    except Unwritable as error:
        raise InputError(f"{name}: {temporary}: {error}; choose another folder by TMPDIR") from error
    return LogProbs(temporary, temporary=True), "kept for this run only"


class _Progress:
    """Log how many solutions this rank has done, every half minute."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.done, self.tokens = name, total, 0, 0
        self.start = self.said = time.monotonic()

    def add(self, solutions: int, tokens: int) -> None:
        self.done, self.tokens = self.done + solutions, self.tokens + tokens
        if (now := time.monotonic()) - self.said < _SECONDS:
            return
        self.said, passed = now, now - self.start
        left = timedelta(seconds=round(passed * (self.total - self.done) / self.done))
        rank_zero_info(
            f"{self.name}: reference: {self.done:,} of {self.total:,} solutions on this device, "
            f"{self.tokens / passed:,.0f} tokens/s, {left} left"
        )
