"""End failed processes, so that the others of the run end too."""

from __future__ import annotations

import faulthandler

import lightning
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

_END_SECONDS = 45


class EndFailed(lightning.Callback):
    """End a failed process within 45 seconds, even if its communication hangs.

    Only in runs of several processes.
    """

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Start a timer that ends the process.

        It leaves time for the error message. Python cannot interrupt a wait in C.
        """
        several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
        if several and not isinstance(exception, SIGTERMException):
            faulthandler.dump_traceback_later(_END_SECONDS, exit=True)
