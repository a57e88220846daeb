"""Leave out what Lightning says at every start; print warnings on one line."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

_PACKAGES = tuple(str(Path(__file__).parents[2] / name) for name in ("stepverify", "sampling"))

_WARNINGS = (
    ".*does not have many workers.*",  # collating takes milliseconds, as records are encoded beforehand
    ".*is smaller than the logging interval.*",
    ".*Total length of `list` across ranks is zero.*",  # no validation, as configured
    ".*'set_vital' is deprecated.*",
    ".*LeafSpec.*",
    ".*LightningCLI's args parameter.*",  # only for callers in Python
    ".*No (positive|negative) samples (found )?in target.*",
)
_LOGGED = ("litlogger", "litmodels", "Tensor Cores", "TPU available", "to estimate number of stepping batches")


def be_quiet() -> None:
    """Filter warnings, log lines and progress bars of Lightning and its dependencies.

    This package's own warnings are printed as one line, without the place in its code.
    """
    warnings.formatwarning = _format
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).addFilter(lambda record: not any(text in record.getMessage() for text in _LOGGED))
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


_format_with_place = warnings.formatwarning


def _format(message: Warning | str, category: type[Warning], filename: str, *place: Any, **line: Any) -> str:
    if filename.startswith(_PACKAGES):
        return f"stepverify: warning: {message}\n"
    return _format_with_place(message, category, filename, *place, **line)
