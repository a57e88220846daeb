"""Hold the key-value cache of the transformers engine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):
    """Keep keys and values in a buffer with room to grow.

    ``DynamicLayer`` copies all of them for every token.
    """

    _buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values, and return views of all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used, new = self.get_seq_length(), key_states.shape[-2]
        if self._buffers is None or used + new > self._buffers[0].shape[-2]:
            shape = (*key_states.shape[:-2], max(2 * used, used + new + 32), key_states.shape[-1])
            keys, values = key_states.new_empty(shape), value_states.new_empty(shape)
            if self.keys is not None and self.values is not None and used:
                keys[..., :used, :], values[..., :used, :] = self.keys, self.values
            self._buffers = keys, values
        keys, values = self._buffers
        keys[..., used : used + new, :], values[..., used : used + new, :] = key_states, value_states
        self.keys, self.values = keys[..., : used + new, :], values[..., : used + new, :]
        return self.keys, self.values

    def select(self, rows: Tensor) -> None:
        """Keep or repeat rows, in a new buffer with twice the room."""
        assert self.keys is not None
        assert self.values is not None
        keys, values = self.keys[rows], self.values[rows]
        self._buffers = None
        self.keys = self.values = keys[..., :0, :]
        self.update(keys, values)

    def append(self, other: GrowingLayer) -> None:
        """Add the rows of another layer.

        Sequences are aligned at their ends; shorter ones are padded with zeros in front.
        """
        assert self.keys is not None
        assert self.values is not None
        assert other.keys is not None
        assert other.values is not None
        length = max(self.keys.shape[-2], other.keys.shape[-2])

        def joined(mine: Tensor, others: Tensor) -> Tensor:
            # Zeros, not uninitialised memory: the padding is masked, but a NaN would pass through the mask.
            return torch.cat([pad(part, (0, 0, length - part.shape[-2], 0)) for part in (mine, others)])

        keys, values = joined(self.keys, other.keys), joined(self.values, other.values)
        self._buffers = None
        self.keys, self.values = keys[..., :0, :], values[..., :0, :]
        self.update(keys, values)
