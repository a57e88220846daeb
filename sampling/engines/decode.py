"""Decode completions for the transformers engine: which calls begin when.

Rows are sampled together, and leave when they end. When few are left, waiting calls take the places. Those of which
much is to be read and those of which little is, since the rest was kept from earlier calls, are read apart, so that
there is little padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch

from sampling.engines.base import Completion, SamplingOptions, Usage, completed
from sampling.engines.batch import Batch, Part, Row
from sampling.engines.prefixes import KeptPrefixes, count_tokens
from sampling.engines.pump import Call, Core

_WINDOW = 8  # calls are sorted by the number of tokens to read within windows of this many batches
_ALIKE = 1 / 2  # prompts are read together if this share of the longest one's tokens is to be read at least
_LEFT = 1 / 8  # share of the rows that is left when calls begin: rows of like age and length need little padding
_FEW = 48  # or this many, fewer of which take nearly as long a step (at most three quarters of all)
_YOUNG = 8  # steps in which calls that come after the first ones still join these: a replica is given one by one


class Decoder(Core):
    """Complete calls with a Hugging Face causal language model.

    Args:
        network: the model.
        tokenizer: its tokenizer.
        end_ids: token ids that end a completion.
        batch_size: completions that are sampled at the same time.
        inference_mode: sample in torch's inference mode; otherwise only with gradients switched off.
        prefix_cache_bytes: size of the keys and values that are kept from call to call.
        usage: counts the tokens of prompts, and those that were not computed.
    """

    def __init__(
        self, network: Any, tokenizer: Any, end_ids: set[int], batch_size: int, inference_mode: bool = True,
        prefix_cache_bytes: int = 0, usage: Usage | None = None,
    ) -> None:  # fmt: skip
        self.network, self.tokenizer, self.end_ids = network, tokenizer, end_ids
        self.batch_size, self.inference_mode = batch_size, inference_mode
        self.prefixes, self.usage = KeptPrefixes(prefix_cache_bytes), usage or Usage()
        self.device, self.pad = network.device, tokenizer.pad_token_id or 0
        self.limit = getattr(network.config, "max_position_embeddings", None) or 1 << 30
        self._waiting: list[Call] = []
        self._window: list[Call] = []  # the next calls, the one with most to read first
        self._batch: Batch | None = None
        self._begun: dict[Call, int] = {}  # completions of the first call in the window that have begun
        self._done: dict[Call, list[Row]] = {}
        self.ending: dict[tuple[str, ...], dict[int, bool]] = {}  # stop texts → token → whether it may complete one

    @property
    def busy(self) -> bool:
        """Tell whether calls are waiting or being sampled."""
        return bool(self._waiting or self._window or self._batch)

    def submit(self, call: Call) -> None:
        """Accept a call."""
        self._waiting.append(call)

    def drop(self, calls: Sequence[Call]) -> None:
        """Forget calls."""
        gone = set(calls)
        self._waiting = [call for call in self._waiting if call not in gone]
        self._window = [call for call in self._window if call not in gone]
        for call in gone:
            self._done.pop(call, None)
            self._begun.pop(call, None)
        if self._batch is not None:
            with self._mode():
                self._batch.drop(gone)
            self._batch = self._batch if self._batch.rows else None

    def step(self) -> list[tuple[Call, list[Completion]]]:
        """Sample a token for every row, and let calls begin where rows have ended."""
        with self._mode():
            finished = self._batch.sample() if self._batch else []
            finished += self._begin()
            if self._batch is not None and self._batch.rows:
                self._batch.advance()
            else:
                self._batch = None
        return self._completed(finished)

    def _mode(self) -> AbstractContextManager[Any]:
        return torch.inference_mode() if self.inference_mode else torch.no_grad()

    def _begin(self) -> list[Row]:
        """Let waiting calls begin; return the rows that end with their first token."""
        used = len(self._batch.rows) if self._batch else 0
        free = self.batch_size - used
        few = max(_LEFT * self.batch_size, min(_FEW, 3 / 4 * self.batch_size))
        young = self._batch is not None and self._batch.steps <= _YOUNG and free >= _LEFT * self.batch_size
        if used > few and not young:
            return []
        if not (parts := self._next_parts(free)):
            return []
        if self._batch is None or not used:
            self._batch = Batch(self, parts[0].call.options)
        for group in self._groups(parts):
            self._batch.begin(group)
        return self._batch.sample()

    def _next_parts(self, free: int) -> list[Part]:
        """Choose what begins in free places; the completions of a large call begin as places become free."""
        parts: list[Part] = []
        while free and (call := self._next_call(parts)) is not None:
            begun = self._begun.get(call, 0)
            left = call.request.n - begun
            if parts and left > free:
                break
            parts.append(Part(call, begun, min(left, free)))
            free -= parts[-1].number
            if parts[-1].number < left:
                self._begun[call] = begun + parts[-1].number
                break
            self._begun.pop(call, None)
            self._window.pop(0)
        return parts

    def _next_call(self, parts: Sequence[Part]) -> Call | None:
        """Return the next call if its rows may be sampled with the others."""
        if not self._window and self._waiting:
            self._fill_window()
        if not self._window:
            return None
        options = parts[0].call.options if parts else self._batch.options if self._batch and self._batch.rows else None
        return self._window[0] if options is None or _alike(options, self._window[0].options) else None

    def _groups(self, parts: Sequence[Part]) -> list[list[Part]]:
        """Divide calls by how much of their prompts is to be read."""
        to_read = [(self._to_read(part.call), part) for part in parts]
        groups: list[list[Part]] = []
        longest = 0
        for number, part in sorted(to_read, key=lambda pair: pair[0], reverse=True):
            if not groups or number < _ALIKE * longest:
                groups.append([])
                longest = number
            groups[-1].append(part)
        return groups

    def _to_read(self, call: Call) -> int:
        return len(call.read) - count_tokens(self.prefixes.find(call.read))

    def _fill_window(self) -> None:
        options, size, later = self._waiting[0].options, 0, list[Call]()
        for call in self._waiting:
            if _alike(call.options, options) and size < _WINDOW * self.batch_size:
                self._window.append(call)
                size += call.request.n
            else:
                later.append(call)
        self._waiting = later
        self._window.sort(key=self._to_read, reverse=True)

    def _completed(self, rows: Sequence[Row]) -> list[tuple[Call, list[Completion]]]:
        finished = []
        for row in rows:
            done = self._done.setdefault(row.call, [])
            done.append(row)
            if len(done) == row.call.request.n:
                finished.append((row.call, sorted(self._done.pop(row.call), key=lambda row: row.index)))
        return [(call, [self._completion(row) for row in done]) for call, done in finished]

    def _completion(self, row: Row) -> Completion:
        made = completed(self.tokenizer, row.ids, row.finish, row.call.options, self.end_ids)
        return replace(made, top_logprobs=row.top_logprobs)


def _alike(one: SamplingOptions, other: SamplingOptions) -> bool:
    """Tell whether rows may be sampled together: their numbers of tokens may differ."""
    return replace(one, max_tokens=other.max_tokens) == other
