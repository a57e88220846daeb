"""Failed processes end: the others of a run end with them."""

from __future__ import annotations

import faulthandler

import lightning
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

_END_SECONDS = 45


class EndFailed(lightning.Callback):
    """Ends a failed process of several within 45 seconds, even if its communication hangs."""

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Give it time for its message; a wait in C is not ended from Python."""
        several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
        if several and not isinstance(exception, SIGTERMException):
            faulthandler.dump_traceback_later(_END_SECONDS, exit=True)
