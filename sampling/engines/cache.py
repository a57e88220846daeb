"""Hold the key-value cache of the transformers engine, whose rows come and go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

Pair = tuple[Tensor, Tensor]
"""Keys and values of a layer, each (R, heads, T, width)."""


class _Layer(DynamicLayer):
    """Write a layer's keys and values of one new token per row."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self._rows = rows
        self.buffers: Pair | None = None
        self.written = 0  # columns beyond those of ``rows``: the layers write theirs one after the other

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Pair:
        """Add a column, and return views of all that are in use."""
        assert self.buffers is not None
        count, start, end = self._rows.count, self._rows.start, self._rows.end
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:count, :, end : end + 1] = new
        self.written = 1
        keys, values = (buffer[:count, :, start : end + 1] for buffer in self.buffers)
        return keys, values

    def get_seq_length(self) -> int:
        """Return the number of columns in use."""
        return self._rows.end - self._rows.start + self.written


class Rows:
    """Keep keys and values of R rows that all end at the same column; shorter ones are padded in front.

    Rows are added and removed without copying the others; all are copied when there is no room for a further column,
    to a buffer with twice the room (transformers' ``DynamicLayer`` copies all of them for every token).

    Args:
        num_layers: layers of the model.

    Attributes:
        count: number of rows.
        start: first column in use.
        end: one past the last column.
        cache: given to the model, together with one token per row.
    """

    def __init__(self, num_layers: int) -> None:
        self.count = self.start = self.end = 0
        self._layers = [_Layer(self) for _ in range(num_layers)]
        self.cache = Cache(layers=list(self._layers))
        self._mask = torch.zeros(0, 0, dtype=torch.bool)
        self._first: list[int] = []  # first column of each row

    def add(self, read: Sequence[Pair], mask: Tensor, numbers: Tensor, lengths: Sequence[int]) -> None:
        """Add rows after the others.

        Args:
            read: keys and values of prompts, layer by layer, T columns each, aligned at their ends.
            mask: (P, T) columns that belong to a prompt.
            numbers: (R,) the prompt of each new row.
            lengths: tokens of these R prompts.
        """
        width, old = mask.shape[1], self.count
        self._reserve(old + len(numbers), width, read)
        self.count += len(numbers)
        for buffer, new in zip(self._buffers(), (part for pair in read for part in pair), strict=True):
            buffer[old : self.count, :, self.end - width : self.end] = new[numbers]
        self._mask[old : self.count] = False
        self._mask[old : self.count, self.end - width : self.end] = mask[numbers]
        self._first += [self.end - length for length in lengths]
        self.start = min(self._first)

    def remove(self, targets: Tensor, sources: Tensor, count: int) -> None:
        """Keep ``count`` rows, after rows ``sources`` have taken the places of rows ``targets``."""
        for part in (*self._buffers(), self._mask[:, None, :, None]):
            part[targets, :, self.start : self.end] = part[sources, :, self.start : self.end]
        for target, source in zip(targets.tolist(), sources.tolist(), strict=True):
            self._first[target] = self._first[source]
        self.count = count
        del self._first[count:]
        if self._first:
            self.start = min(self._first)

    def begin_column(self) -> Tensor:
        """Make room for a column; return the (R, T) mask with it."""
        self._reserve(self.count, 0, ())
        self._mask[: self.count, self.end] = True
        return self._mask[: self.count, self.start : self.end + 1]

    def end_column(self) -> None:
        """Count the column that all layers have written."""
        self.end += 1
        for layer in self._layers:
            layer.written = 0

    def states(self) -> list[Pair]:
        """Return views of keys and values, layer by layer."""
        views = [buffer[: self.count, :, self.start : self.end] for buffer in self._buffers()]
        return list(zip(views[::2], views[1::2], strict=True))

    def _buffers(self) -> list[Tensor]:
        return [buffer for layer in self._layers for buffer in layer.buffers or ()]

    def _reserve(self, count: int, width: int, like: Sequence[Pair]) -> None:
        """Make room for this many rows, for columns in front of the end, and for one after it."""
        if count <= self._mask.shape[0] and width <= self.end < self._mask.shape[1]:
            return
        used, room = self.end - self.start, max(count, self._mask.shape[0])
        end = max(used, width)

        def larger(old: Tensor | None, new: Tensor) -> Tensor:
            # Zeros, not uninitialised memory: the padding is masked, but a NaN would pass through the mask.
            made = new.new_zeros(room, new.shape[1], 2 * end + 32, new.shape[3])
            if old is not None:
                made[: self.count, :, end - used : end] = old[: self.count, :, self.start : self.end]
            return made

        states = like or [layer.buffers for layer in self._layers if layer.buffers is not None]
        for layer, pair in zip(self._layers, states, strict=True):
            keys, values = (larger(old, new) for old, new in zip(layer.buffers or (None, None), pair, strict=True))
            layer.buffers = keys, values
        device = self._buffers()[0].device
        mask = self._mask.to(device)[:, None, :, None]
        self._mask = larger(mask if self.count else None, mask)[:, 0, :, 0]
        self._first = [first + end - self.end for first in self._first]
        self.start, self.end = end - used, end
