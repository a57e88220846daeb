"""What a model reads: padded ids and the positions at which its head is applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from stepverify.data.encode import Example
from stepverify.records import Solution


@dataclass(kw_only=True, slots=True)
class Batch:
    """B sequences of T tokens, read at M positions in all.

    Attributes:
        input_ids: (B, T) token ids, padded on the right.
        attention_mask: (B, T) true at tokens, false at padding.
        position_ids: (B, T) positions along each sequence.
        index: (M,) positions to read, into the flattened (B·T); ascending within a sequence.
        targets: (M,) what should be read there (a token id, or a probability); None in prediction.
        owner: (M,) which of the B records a position belongs to.
        records: the B solutions.
        lm_index: (L,) positions to read for a joint language-model loss, into the flattened (B·T); None without one.
        lm_targets: (L,) the token ids that follow them.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    index: Tensor
    targets: Tensor | None
    owner: Tensor
    records: list[Solution]
    lm_index: Tensor | None = None
    lm_targets: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        tensors: dict[str, Any] = {f.name: t for f in fields(self) if isinstance(t := getattr(self, f.name), Tensor)}
        return replace(self, **{name: t.to(device, non_blocking=non_blocking) for name, t in tensors.items()})

    def last(self) -> Tensor:
        """(B,) for each record, which of the M positions is its last one."""
        counts = torch.bincount(self.owner, minlength=len(self.records))
        return counts.cumsum(0) - 1

    def split(self, values: Tensor) -> list[list[float]]:
        """(M,) values → for each record the values along it."""
        counts = torch.bincount(self.owner, minlength=len(self.records)).tolist()
        return [part.tolist() for part in values.float().cpu().split(counts)]


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Pad examples on the right into one batch."""
    length = max(len(e.input_ids) for e in examples)
    input_ids = torch.full((len(examples), length), pad_id)
    mask = torch.zeros(len(examples), length, dtype=torch.bool)
    index, owner, targets = [], [], []
    lm_index: list[int] = []
    for row, example in enumerate(examples):
        used = len(example.input_ids)
        input_ids[row, :used] = torch.tensor(example.input_ids)
        mask[row, :used] = True
        index += [row * length + p for p in example.positions]
        owner += [row] * len(example.positions)
        targets += example.targets or []
        lm_index += [row * length + p for p in example.lm_positions]
    return Batch(
        input_ids=input_ids,
        attention_mask=mask,
        position_ids=torch.arange(length).expand(len(examples), length).contiguous(),
        index=torch.tensor(index),
        targets=torch.tensor(targets, dtype=torch.float64).float() if targets else None,
        owner=torch.tensor(owner),
        records=[e.record for e in examples],
        lm_index=torch.tensor(lm_index) if lm_index else None,
        # A position that is learned as language always has a successor in its own row.
        lm_targets=input_ids.flatten()[torch.tensor(lm_index) + 1] if lm_index else None,
    )
