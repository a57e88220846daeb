"""Decode rows of completions together, one token per step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from sampling.engines.base import GOLDEN, SamplingOptions
from sampling.engines.cache import Rows
from sampling.engines.grouped_attention import grouped_attention
from sampling.engines.prefixes import count_tokens
from sampling.engines.pump import Call
from sampling.engines.token_sampling import sample_tokens, wrap

if TYPE_CHECKING:
    from sampling.engines.decode import Decoder

_TAIL = 16  # smallest number of final tokens that are decoded to find a stop text


@dataclass(frozen=True, slots=True)
class Part:
    """Name some of the completions of a call, which begin together: ``number`` of them from ``first`` on."""

    call: Call
    first: int
    number: int


@dataclass(slots=True, eq=False)
class Row:
    """Hold a completion that is being sampled.

    Attributes:
        call: what was asked for.
        index: number of the completion in it.
        ids: prefix and sampled tokens.
        known: number of tokens at the start of the prompt that were kept from earlier when the row began.
        finish: finish reason.
        top_logprobs: of the first sampled token, if the request asks for them.
    """

    call: Call
    index: int
    ids: list[int]
    known: int
    finish: str = "length"
    top_logprobs: list[tuple[str, float]] | None = None


class Batch:
    """Decode rows together; rows begin and end at any step.

    Args:
        decoder: model, tokenizer and the kept prefixes.
        options: how all rows are sampled, apart from their number of tokens.

    Attributes:
        rows: those that are being sampled.
        steps: number of tokens that the oldest rows have sampled.
    """

    def __init__(self, decoder: Decoder, options: SamplingOptions) -> None:
        self.decoder, self.options, self.rows = decoder, options, list[Row]()
        self.steps = 0
        # Each token of a stop text covers at least one byte of it.
        self._tail = max([_TAIL, *(len(text.encode()) + 1 for text in options.stop)])
        self._ending: dict[int, bool] = decoder.ending.setdefault(tuple(options.stop), {})
        self._end = torch.tensor(sorted(decoder.end_ids | set(options.stop_ids)), device=decoder.device)
        self._kept = Rows(decoder.network.config.num_hidden_layers)
        none = torch.zeros(0, dtype=torch.long, device=decoder.device)
        self._seeds = self._room = self._positions = self._tokens = none
        self._logits: Tensor | None = None

    def begin(self, parts: Sequence[Part]) -> None:
        """Read prompts, each once for all of its rows, and add the rows; their first token is to be sampled then."""
        prefixes, device, read = self.decoder.prefixes, self.decoder.device, [part.call.read for part in parts]
        paths = [prefixes.find(ids) for ids in read]
        known = [count_tokens(path) for path in paths]
        # Each prompt computes as many tokens as the one with the most new ones: no padding may stand within a row.
        new = max(len(ids) - first for ids, first in zip(read, known, strict=True))
        kept = [max(0, len(ids) - new) for ids in read]
        layers = prefixes.layers(paths, kept, self.decoder.network.config.num_hidden_layers)
        ids = torch.full((len(read), new), self.decoder.pad)
        mask = torch.zeros(len(read), max(kept) + new, dtype=torch.bool)
        for i, row in enumerate(read):
            last = row[kept[i] :]
            ids[i, new - len(last) :] = torch.tensor(last)
            mask[i, mask.shape[1] - len(row) :] = True
        ids, mask = ids.to(device), mask.to(device)
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -new:]
        logits = self._forward(ids, mask, positions, Cache(layers=list(layers)))
        states = [(layer.keys, layer.values) for layer in layers if layer.keys is not None and layer.values is not None]
        prefixes.keep(states, range(len(read)), read, known)
        for part, row, first in zip(parts, read, known, strict=True):
            self.decoder.usage.count(part.number * len(row), (part.number - 1) * len(row) + first)
        numbers = [i for i, part in enumerate(parts) for _ in range(part.number)]
        rows = [
            Row(part.call, part.first + i, list(part.call.prefix), first)
            for part, first in zip(parts, known, strict=True)
            for i in range(part.number)
        ]
        # SplitMix64 adds a constant per step: advance the seed by as many steps as the prefix has tokens.
        seeds = [wrap(row.call.request.seed + row.index + GOLDEN * len(row.ids)) for row in rows]
        lengths = [len(read[i]) for i in numbers]
        chosen = torch.tensor(numbers, device=device)
        self._kept.add(states, mask, chosen, lengths)
        self.rows += rows
        self._seeds = torch.cat([self._seeds, torch.tensor(seeds, device=device)])
        self._room = torch.cat([self._room, torch.tensor([row.call.room for row in rows], device=device)])
        self._positions = torch.cat([self._positions, torch.tensor(lengths, device=device)])
        before = [] if self._logits is None else [self._logits]
        self._logits = torch.cat([*before, logits[chosen]])

    def sample(self) -> list[Row]:
        """Sample a token for each row that waits for one; remove and return the rows that it finishes."""
        if self._logits is None:
            return []
        first = len(self._tokens)
        tokens = sample_tokens(self._logits, self._seeds[first:], 0, self.options)
        self._keep_top(self._logits, self.rows[first:])
        self._logits = None
        self._seeds[first:] += wrap(GOLDEN)
        self._room[first:] -= 1
        self._tokens = torch.cat([self._tokens, tokens])
        for row, token in zip(self.rows[first:], tokens.tolist(), strict=True):  # one copy from the device for all rows
            row.ids.append(token)
        stopped = [False] * first + [self._stopped(row) for row in self.rows[first:]]
        ended = torch.isin(self._tokens, self._end)
        ended[:first] = False
        ended |= torch.tensor(stopped, device=ended.device)
        over = ended | (self._room <= 0)
        numbers = over.nonzero().flatten().tolist()
        finished = [self.rows[number] for number in numbers]
        for row, has_ended in zip(finished, ended[numbers].tolist(), strict=True):
            row.finish = "stop" if has_ended else "length"
        self._keep([number for number in numbers if stopped[number]])
        self._remove(numbers)
        return finished

    def advance(self) -> None:
        """Compute the logits after the token that was sampled last, of all rows."""
        self.steps += 1
        mask = self._kept.begin_column()
        self._logits = self._forward(self._tokens[:, None], mask, self._positions[:, None], self._kept.cache)
        self._kept.end_column()
        self._positions += 1
        self._tokens = self._tokens[:0]

    def drop(self, calls: set[Call]) -> None:
        """Remove the rows of the given calls."""
        self._remove([number for number, row in enumerate(self.rows) if row.call in calls])

    def _remove(self, numbers: Sequence[int]) -> None:
        """Remove rows; the last ones take their places."""
        if not numbers:
            return
        gone, left = set(numbers), len(self.rows) - len(numbers)
        to = [number for number in numbers if number < left]
        of = [number for number in range(left, len(self.rows)) if number not in gone]
        targets, sources = (torch.tensor(places, dtype=torch.long, device=self.decoder.device) for places in (to, of))
        self._kept.remove(targets, sources, left)
        for target, source in zip(to, of, strict=True):
            self.rows[target] = self.rows[source]
        del self.rows[left:]
        for name in ("_seeds", "_room", "_positions", "_tokens", "_logits"):
            if (values := getattr(self, name)) is not None and len(values):
                values[targets] = values[sources]
                setattr(self, name, values[:left])

    def _keep_top(self, logits: Tensor, rows: Sequence[Row]) -> None:
        """Keep the log-probabilities of the first tokens that requests ask for; ``logits`` is (R, V)."""
        for one, row in zip(logits, rows, strict=True):
            if (number := row.call.request.top_logprobs) and row.top_logprobs is None:
                found, ids = one.log_softmax(-1).topk(min(number, len(one)))
                texts = [self.decoder.tokenizer.decode([token]) for token in ids.tolist()]
                row.top_logprobs = list(zip(texts, found.tolist(), strict=True))

    def _keep(self, numbers: Sequence[int]) -> None:
        """Keep rows that a stop text has ended: they may be continued. Their final token was not computed."""
        rows = [self.rows[number] for number in numbers]
        ids = [row.call.request.prompt_ids + row.ids[:-1] for row in rows]
        self.decoder.prefixes.keep(self._kept.states(), numbers, ids, [row.known for row in rows])

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        with grouped_attention(self.decoder.network):
            out = self.decoder.network(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
                logits_to_keep=1,
            )  # fmt: skip
        return out.logits[:, -1].float()

    def _stopped(self, row: Row) -> bool:
        """Tell whether a row now ends with a stop text."""
        if not self.options.stop or not self._may_end(row.ids[-1]):
            return False
        text = self.decoder.tokenizer.decode(row.ids[-self._tail :], skip_special_tokens=True)
        return any(stop in text for stop in self.options.stop)

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
