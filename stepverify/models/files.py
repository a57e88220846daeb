"""Read safetensors checkpoints tensor by tensor."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import safetensors
from torch import Tensor

_ONE = threading.RLock()
_IN_ORDER = "HF_DEACTIVATE_ASYNC_LOAD"  # read by transformers


@contextmanager
def tensor_by_tensor() -> Iterator[None]:
    """Limit transformers' ``from_pretrained`` to one tensor besides the model.

    By default it maps whole files until the end, and reads ahead in several threads: with a cast to another dtype this
    holds the checkpoint a second time.
    """
    from transformers import modeling_utils

    library: Any = modeling_utils
    with _ONE:
        before, opened = os.environ.get(_IN_ORDER), library.safe_open
        os.environ[_IN_ORDER], library.safe_open = "1", _File
        try:
            yield
        finally:
            library.safe_open = opened
            if before is None:
                del os.environ[_IN_ORDER]
            else:
                os.environ[_IN_ORDER] = before


def return_freed_memory() -> None:
    """Return freed memory to the operating system.

    The allocator of glibc keeps it: after a model of 0.5 B parameters was read, as much as half of the parameters.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


class _File:
    """Open the file anew for each tensor; no mapping outlives it."""

    def __init__(self, filename: Any, **options: Any) -> None:
        self.options: Any = {"filename": filename, **options}

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def _open(self) -> Any:
        return safetensors.safe_open(**self.options)

    def keys(self) -> list[str]:
        with self._open() as file:
            return list(file.keys())

    def metadata(self) -> dict[str, str] | None:
        with self._open() as file:
            return file.metadata()

    def get_tensor(self, name: str) -> Tensor:
        return self.get_slice(name)[...]

    def get_slice(self, name: str) -> _Stored:
        return _Stored(self, name)


class _Stored:
    """Read a tensor when it is indexed."""

    def __init__(self, file: _File, name: str) -> None:
        self.file, self.name = file, name

    def __getitem__(self, index: Any) -> Tensor:
        with self.file._open() as file:
            return file.get_slice(self.name)[index]

    def get_shape(self) -> list[int]:
        with self.file._open() as file:
            return file.get_slice(self.name).get_shape()

    def get_dtype(self) -> str:
        with self.file._open() as file:
            return file.get_slice(self.name).get_dtype()
