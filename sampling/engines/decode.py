"""Decode batches of completions for the transformers engine.

The rows of a batch begin together, so they have similar lengths and little padding. When an eighth of them is left
(long completions), these continue as a second, small batch next to a new full one, so that no call waits for them; when
the new batch has become as small, the two are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache

from sampling.engines.base import GOLDEN, Completion, SamplingOptions, completed
from sampling.engines.cache import GrowingLayer
from sampling.engines.pump import Call, Core
from sampling.engines.token_sampling import sample_tokens, wrap

_TAIL = 16  # smallest number of final tokens that are decoded to find a stop text
_WINDOW = 8  # calls are sorted by prompt length within windows of this many batches
_LEFT = 1 / 8  # share of a batch that may be left when the next one begins next to it


@dataclass(slots=True, eq=False)
class _Row:
    """Hold a completion that is being sampled."""

    call: Call
    index: int
    ids: list[int]
    finish: str = "length"


class _Batch:
    """Decode rows together, one token per step."""

    def __init__(self, decoder: Decoder, calls: Sequence[Call]) -> None:
        self.decoder, device = decoder, decoder.device
        self.options = calls[0].options
        # Each token of a stop text covers at least one byte of it.
        self._tail = max([_TAIL, *(len(text.encode()) + 1 for text in self.options.stop)])
        self._ending: dict[int, bool] = decoder.ending.setdefault(tuple(self.options.stop), {})
        end_ids = decoder.end_ids | set(self.options.stop_ids)
        self._end = torch.tensor(sorted(end_ids), device=device)
        read = [call.request.prompt_ids + call.prefix for call in calls]
        length = max(map(len, read))
        ids = torch.full((len(calls), length), decoder.pad)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for i, row in enumerate(read):
            ids[i, length - len(row) :] = torch.tensor(row)
            mask[i, length - len(row) :] = True
        ids, mask = ids.to(device), mask.to(device)
        self._layers = [GrowingLayer() for _ in range(decoder.network.config.num_hidden_layers)]
        self._cache = Cache(layers=list(self._layers))
        logits = self._forward(ids, mask, (mask.long().cumsum(1) - 1).clamp(min=0))
        # Each prompt was read once; from here on every sample is a row.
        numbers = torch.tensor([i for i, call in enumerate(calls) for _ in range(call.request.n)], device=device)
        self.rows = [_Row(call, i, list(call.prefix)) for call in calls for i in range(call.request.n)]
        # SplitMix64 adds a constant per step: advance the seed by as many steps as the prefix has tokens.
        seeds = [
            wrap(call.request.seed + k + GOLDEN * len(call.prefix)) for call in calls for k in range(call.request.n)
        ]
        self._seeds = torch.tensor(seeds, device=device)
        self._room = torch.tensor([call.room for call in calls], device=device)[numbers]
        self._logits, self._mask = logits[numbers], mask[numbers]
        self._positions = self._mask.long().sum(1)
        self.active = torch.ones_like(self._room, dtype=torch.bool)
        for layer in self._layers:
            layer.select(numbers)

    def step(self) -> list[_Row]:
        """Sample a token for each row; return the rows that it finishes."""
        tokens = sample_tokens(self._logits, self._seeds, 0, self.options)
        self._seeds += wrap(GOLDEN)
        self._room -= 1
        # One copy from the device for all rows.
        sampled, was_active = torch.stack([tokens, self.active.long()]).tolist()
        for row, token, is_active in zip(self.rows, sampled, was_active, strict=True):
            if is_active:
                row.ids.append(token)
        ended = torch.isin(tokens, self._end)
        if self.options.stop:
            ended |= self._stopped(was_active)
        going_on = self.active & ~ended & (self._room > 0)
        finished = []
        for number in (self.active & ~going_on).nonzero().flatten().tolist():
            row = self.rows[number]
            row.finish = "stop" if ended[number] else "length"
            finished.append(row)
        self.active = going_on
        left = int(self.active.sum())
        if left == 0:
            return finished
        # Compact when a quarter of the rows is finished: dropping rows one by one would copy the cache each time.
        if left <= 0.75 * len(self.rows):
            tokens = tokens[self.active]
            self.compact()
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        self._logits = self._forward(tokens[:, None], self._mask, self._positions[:, None])
        self._positions = torch.where(self.active, self._positions + 1, 0)  # finished rows stay within the context
        return finished

    def compact(self) -> None:
        """Drop the rows that are not active."""
        if bool(self.active.all()):
            return
        keep = self.active.nonzero().flatten()
        for layer in self._layers:
            layer.select(keep)
        self.rows = [self.rows[number] for number in keep.tolist()]
        self._mask, self._positions, self._seeds = self._mask[keep], self._positions[keep], self._seeds[keep]
        self._room, self._logits, self.active = self._room[keep], self._logits[keep], self.active[keep]

    def append(self, other: _Batch) -> None:
        """Add the rows of another batch."""
        for batch in (self, other):
            batch.compact()
        for mine, others in zip(self._layers, other._layers, strict=True):
            mine.append(others)
        length = max(self._mask.shape[1], other._mask.shape[1])
        self._mask = torch.cat([pad(m, (length - m.shape[1], 0)) for m in (self._mask, other._mask)])
        for name in ("_positions", "_seeds", "_room", "_logits", "active"):
            setattr(self, name, torch.cat([getattr(self, name), getattr(other, name)]))
        self.rows += other.rows

    def drop(self, calls: set[Call]) -> None:
        """Stop the rows of the given calls."""
        kept = torch.tensor([row.call not in calls for row in self.rows], device=self.active.device)
        self.active = self.active & kept

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        out = self.decoder.network(
            input_ids=ids, attention_mask=mask, position_ids=positions,
            past_key_values=self._cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        return out.logits[:, -1].float()

    def _stopped(self, was_active: Sequence[int]) -> Tensor:
        found = []
        for row, is_active in zip(self.rows, was_active, strict=True):
            ends = bool(is_active) and self._may_end(row.ids[-1])
            text = self.decoder.tokenizer.decode(row.ids[-self._tail :], skip_special_tokens=True) if ends else ""
            found.append(any(stop in text for stop in self.options.stop))
        return torch.tensor(found, device=self.active.device)

    def _may_end(self, token: int) -> bool:
        """Tell whether a token may complete a stop text, so that only a few rows are decoded in every step.

        It has the final character of one, or a part of a character. Blank space is lost by tokens that stand alone.
        """
        if (known := self._ending.get(token)) is None:
            text = self.decoder.tokenizer.decode([token], skip_special_tokens=True)
            finals = [stop[-1] for stop in self.options.stop]
            known = "\ufffd" in text or any(final in text or final in " \t" for final in finals)
            self._ending[token] = known
        return known


class Decoder(Core):
    """Complete calls with a Hugging Face causal language model.

    Args:
        network: the model.
        tokenizer: its tokenizer.
        end_ids: token ids that end a completion.
        batch_size: completions that begin together; up to an eighth as many may be left of earlier batches.
        inference_mode: sample in torch's inference mode; otherwise only with gradients switched off.
    """

    def __init__(
        self, network: Any, tokenizer: Any, end_ids: set[int], batch_size: int, inference_mode: bool = True
    ) -> None:
        self.network, self.tokenizer, self.end_ids = network, tokenizer, end_ids
        self.batch_size, self.inference_mode = batch_size, inference_mode
        self.device, self.pad = network.device, tokenizer.pad_token_id or 0
        self.limit = getattr(network.config, "max_position_embeddings", None) or 1 << 30
        self._waiting: list[Call] = []
        self._window: list[Call] = []  # the next calls, the longest prompt first
        self._batches: list[_Batch] = []
        self._done: dict[Call, list[_Row]] = {}
        self.ending: dict[tuple[str, ...], dict[int, bool]] = {}  # stop texts → token → whether it may complete one

    @property
    def busy(self) -> bool:
        """Tell whether calls are waiting or being sampled."""
        return bool(self._waiting or self._window or self._batches)

    def submit(self, call: Call) -> None:
        """Accept a call."""
        self._waiting.append(call)

    def drop(self, calls: Sequence[Call]) -> None:
        """Forget calls."""
        gone = set(calls)
        self._waiting = [call for call in self._waiting if call not in gone]
        self._window = [call for call in self._window if call not in gone]
        for batch in self._batches:
            batch.drop(gone)
        for call in gone:
            self._done.pop(call, None)
        self._batches = [batch for batch in self._batches if bool(batch.active.any())]

    def step(self) -> list[tuple[Call, list[Completion]]]:
        """Begin a batch if possible, and sample a token for every row."""
        with torch.inference_mode() if self.inference_mode else torch.no_grad():
            self._begin_batch()
            finished = [row for batch in self._batches for row in batch.step()]
        self._batches = [batch for batch in self._batches if bool(batch.active.any())]
        return self._completed(finished)

    def _begin_batch(self) -> None:
        in_use = sum(int(batch.active.sum()) for batch in self._batches)
        if (self._batches and in_use > _LEFT * self.batch_size) or not (self._window or self._waiting):
            return
        if not self._window:
            self._fill_window()
        options, calls, size = self._window[0].options, list[Call](), 0
        if not all(_alike(batch.options, options) for batch in self._batches):
            return  # calls with other options wait until these rows are finished
        while self._window and (not calls or size + self._window[0].request.n <= self.batch_size):
            calls.append(self._window.pop(0))
            size += calls[-1].request.n
        if len(self._batches) == 2:
            self._batches[0].append(self._batches.pop())
        self._batches.append(_Batch(self, calls))

    def _fill_window(self) -> None:
        options, size, later = self._waiting[0].options, 0, list[Call]()
        for call in self._waiting:
            if _alike(call.options, options) and size < _WINDOW * self.batch_size:
                self._window.append(call)
                size += call.request.n
            else:
                later.append(call)
        self._waiting = later
        self._window.sort(key=lambda call: -len(call.request.prompt_ids))

    def _completed(self, rows: Sequence[_Row]) -> list[tuple[Call, list[Completion]]]:
        finished = []
        for row in rows:
            done = self._done.setdefault(row.call, [])
            done.append(row)
            if len(done) == row.call.request.n:
                finished.append((row.call, sorted(self._done.pop(row.call), key=lambda row: row.index)))
        return [(call, [self._completion(row) for row in done]) for call, done in finished]

    def _completion(self, row: _Row) -> Completion:
        return completed(self.tokenizer, row.ids, row.finish, row.call.options, self.end_ids)


def _alike(one: SamplingOptions, other: SamplingOptions) -> bool:
    """Tell whether rows may be sampled together: their numbers of tokens may differ."""
    return replace(one, max_tokens=other.max_tokens) == other
