"""Every fit ends in a Hugging Face directory that carries layout, ids and objective."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from stepverify.modules import VerifierModule


class HuggingFaceExport(lightning.Callback):
    """Writes the trained model when fit ends, as a whole or not at all.

    Args:
        folder: where to; what an earlier fit exported there is replaced.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Gather sharded weights on all ranks, write on rank 0."""
        assert isinstance(pl_module, VerifierModule)
        assert pl_module.model is not None
        if trainer.interrupted or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        # All ranks take part: with FSDP2 each holds only its shard.
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state: dict[str, Any] = get_model_state_dict(pl_module.model, options=options)
        if trainer.is_global_zero:
            draft = self.folder.with_name(f".{self.folder.name}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            pl_module.model.export(draft, state)
            pl_module.describe(draft)
            shutil.rmtree(self.folder, ignore_errors=True)
            draft.replace(self.folder)
        trainer.strategy.barrier("export")
