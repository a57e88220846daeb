"""Keep the log-probabilities of a reference model beside encoded examples."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from stepverify.data.arrays import MappedArrays, Unwritable, write_index

_FILE, _CODE = "log_probs", "f"


class LogProbs(MappedArrays):
    """Log-probabilities of the tokens at the positions of a table's examples, one row after the other.

    Args:
        folder: written by :func:`write_log_probs`.
        temporary: remove the folder when this object is gone.

    Attributes:
        values: (N,) float32, in nats, mapped into memory.
    """

    def __init__(self, folder: Path, *, temporary: bool = False) -> None:
        super().__init__(folder, temporary=temporary)
        self.values = self.map(_FILE, _CODE)


def write_log_probs(folder: Path, values: np.ndarray) -> None:
    """Write (N,) values into an empty folder.

    Raises:
        Unwritable: the disk is full or the folder may not be written.
    """
    data = values.astype(_CODE).tobytes()
    try:
        (folder / _FILE).write_bytes(data)
    except OSError as error:
        raise Unwritable(error.strerror) from error
    write_index(folder, {}, {_FILE: (len(data), zlib.crc32(data))})
