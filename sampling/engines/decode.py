"""The decoding loop of the transformers engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from sampling.engines.base import GOLDEN, Completion, Request, SamplingOptions, completed
from stepverify.records import InputError

_TAIL = 16  # tokens, at least, that are decoded to look for a stop text


class GrowingLayer(DynamicLayer):
    """Keys and values in a buffer with room to grow: DynamicLayer copies all of it for every token."""

    _buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append along the sequence and return all that is there, as views."""
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
        """Keep or repeat rows; the buffer is made anew with room for as much again."""
        assert self.keys is not None
        assert self.values is not None
        keys, values = self.keys[rows], self.values[rows]
        self._buffers = None
        self.keys = self.values = keys[..., :0, :]
        self.update(keys, values)


class Decoder:
    """Draws completions for batches of requests.

    Args:
        network: a Hugging Face causal language model.
        tokenizer: its tokenizer.
        options: how to draw.
        end_ids: token ids that end a completion.
    """

    def __init__(self, network: Any, tokenizer: Any, options: SamplingOptions, end_ids: set[int]) -> None:
        self.network, self.tokenizer, self.options = network, tokenizer, options
        self.device = network.device
        # A token of a stop text is one byte of it at least.
        self._tail = max([_TAIL, *(len(text.encode()) + 1 for text in options.stop)])
        self._end_ids, self._end = end_ids, torch.tensor(sorted(end_ids), device=self.device)
        self._pad = tokenizer.pad_token_id or 0
        self._limit = getattr(network.config, "max_position_embeddings", None) or 1 << 30

    def run(self, requests: Sequence[Request], inference_mode: bool = True) -> list[list[Completion]]:
        """The ``n`` completions of each request; without ``inference_mode``, without gradients alone."""
        with torch.inference_mode() if inference_mode else torch.no_grad():
            return self._run(requests)

    def _run(self, requests: Sequence[Request]) -> list[list[Completion]]:
        for r in requests:
            if len(r.prompt_ids) >= self._limit:
                raise InputError(f"{r.key}: the prompt has {len(r.prompt_ids)} tokens, the model takes {self._limit}")
        # A prefix may be all of a completion: it ends at the limit, and at a stop text.
        longest = [min(self.options.max_tokens, self._limit - len(r.prompt_ids)) for r in requests]
        begun = [
            completed(self.tokenizer, r.prefix_ids[:most], "length", self.options)
            for r, most in zip(requests, longest, strict=True)
        ]
        prefixes = [b.token_ids for b in begun]
        read = [r.prompt_ids + prefix for r, prefix in zip(requests, prefixes, strict=True)]
        length = max(map(len, read))
        ids = torch.full((len(requests), length), self._pad)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for i, row in enumerate(read):
            ids[i, length - len(row) :] = torch.tensor(row)
            mask[i, length - len(row) :] = True
        ids, mask = ids.to(self.device), mask.to(self.device)
        layers = [GrowingLayer() for _ in range(self.network.config.num_hidden_layers)]
        cache = Cache(layers=list(layers))
        logits = self._forward(ids, mask, (mask.long().cumsum(1) - 1).clamp(min=0), cache)
        # The prompt was read once; from here on every sample is a row.
        rows = torch.tensor([i for i, r in enumerate(requests) for _ in range(r.n)], device=self.device)
        # SplitMix64 adds a constant a step: a seed so much further begins behind the prefix.
        seeds = torch.tensor(
            [
                _wrap(r.seed + k + GOLDEN * len(prefix))
                for r, prefix in zip(requests, prefixes, strict=True)
                for k in range(r.n)
            ],
            device=self.device,
        )
        left = [0 if b.finish == "stop" else most - len(b.token_ids) for b, most in zip(begun, longest, strict=True)]
        room = torch.tensor(left, device=self.device)
        drawn = [list(prefixes[row]) for row in rows.tolist()]
        for layer in layers:
            layer.select(rows)
        finish = self._draw_all(drawn, logits[rows], mask[rows], seeds, room[rows], cache, layers)
        completions = iter(
            completed(self.tokenizer, tokens, why, self.options, self._end_ids)
            for tokens, why in zip(drawn, finish, strict=True)
        )
        return [[next(completions) for _ in range(r.n)] for r in requests]

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        out = self.network(
            input_ids=ids, attention_mask=mask, position_ids=positions,
            past_key_values=cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        return out.logits[:, -1].float()

    def _draw_all(
        self, drawn: list[list[int]], logits: Tensor, mask: Tensor, seeds: Tensor, room: Tensor,
        cache: Cache, layers: Sequence[GrowingLayer],
    ) -> list[str]:  # fmt: skip
        """Draw on at the end of ``drawn``, at most ``room`` tokens a row; why each ended."""
        total = len(seeds)
        finish = ["length"] * total
        live = list(range(total))  # which sample a row of the batch is
        positions = mask.long().sum(1)
        active = room > 0  # rows not finished yet
        for step in range(self.options.max_tokens):
            tokens = draw(logits, seeds, step, self.options)
            ended = torch.isin(tokens, self._end)
            # One copy from the device for all rows.
            now = torch.stack([tokens, active.long()]).tolist()
            for sample, token, is_active in zip(live, *now, strict=True):
                if is_active:
                    drawn[sample].append(token)
            if self.options.stop:
                ended |= self._stopped(drawn, live, now[1])
            for row in (ended & active).nonzero().flatten().tolist():
                finish[live[row]] = "stop"
            active &= ~ended & (room > step + 1)
            left = int(active.sum())
            if left == 0:
                break
            # Compact when a quarter of the rows is finished: dropping each at once would copy the cache each time.
            if left <= 0.75 * len(live):
                keep = active.nonzero().flatten()
                for layer in layers:
                    layer.select(keep)
                live, tokens, mask = [live[row] for row in keep.tolist()], tokens[keep], mask[keep]
                positions, seeds, room, active = positions[keep], seeds[keep], room[keep], active[keep]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self._forward(tokens[:, None], mask, positions[:, None], cache)
            positions = positions + 1
        return finish

    def _stopped(self, drawn: list[list[int]], live: list[int], active: list[int]) -> Tensor:
        found = []
        for sample, is_active in zip(live, active, strict=True):
            tail = drawn[sample][-self._tail :] if is_active else []
            text = self.tokenizer.decode(tail, skip_special_tokens=True)
            found.append(any(stop in text for stop in self.options.stop))
        return torch.tensor(found, device=self.device)


def draw(logits: Tensor, seeds: Tensor, step: int, options: SamplingOptions) -> Tensor:
    """One token a row by inverting the cumulative distribution at a uniform number hashed from seed and step.

    Args:
        logits: (R, V).
        seeds: (R,) non-negative 63-bit integers.
        step: how many tokens were drawn before.
        options: temperature, top_p and top_k.

    Returns:
        (R,) token ids.
    """
    if options.temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits / options.temperature).softmax(-1)
    if options.top_k or options.top_p < 1:
        ordered, order = probabilities.sort(-1, descending=True)
        if options.top_k:
            ordered[:, options.top_k :] = 0
            ordered /= ordered.sum(-1, keepdim=True)  # top_p is a share of what top_k leaves
        # A token stays as long as those before it have less than top_p: the first one always does.
        ordered[ordered.cumsum(-1) - ordered >= options.top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter_(-1, order, ordered)
    cumulative = probabilities.double().cumsum(-1)
    target = uniform(seeds, step)[:, None] * cumulative[:, -1:]
    # right=True: a token of probability 0 is never hit, not even by a target of exactly 0.
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)


def uniform(seeds: Tensor, step: int) -> Tensor:
    """(R,) uniform numbers in [0, 1): SplitMix64's finaliser (Steele et al. 2014) over seed and step."""
    x = seeds + _wrap(GOLDEN * (step + 1))
    x = (x ^ _shift(x, 30)) * _wrap(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _wrap(0x94D049BB133111EB)
    x = x ^ _shift(x, 31)
    return _shift(x, 11).double() * 2.0**-53


def _wrap(value: int) -> int:
    """A 64-bit pattern as the signed integer that torch has for it."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical (zero-filling) right shift; torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
