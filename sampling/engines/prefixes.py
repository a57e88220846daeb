"""Keep the keys and values of what the transformers engine has read and sampled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers.cache_utils import DynamicLayer

from sampling.engines.cache import Pair
from stepverify.prefix_cache import Node, PrefixCache

Path = list[tuple[Node, int]]
"""Nodes along a known prefix, and the number of tokens in each."""


def count_tokens(path: Path) -> int:
    """Return the number of tokens of a known prefix."""
    return sum(count for _, count in path)


class KeptPrefixes:
    """Keep keys and values of prompts and completions, so that their continuations read new tokens only.

    Args:
        max_bytes: size of keys and values, at most; the least recently used are dropped first. 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._cache = PrefixCache(max_bytes)
        self._shapes: list[tuple[int, int]] = []  # heads and width of each layer's keys and values

    def find(self, ids: list[int]) -> Path:
        """Find the longest known prefix; the final token is never part of it, since it has to be read."""
        return self._cache.find(ids[:-1])

    def layers(self, paths: Sequence[Path], lengths: Sequence[int], num_layers: int) -> list[DynamicLayer]:
        """Return the keys and values of prefixes, aligned at their ends, with zeros in front of shorter ones.

        Args:
            paths: a known prefix for each row, as found since the last :meth:`keep`.
            lengths: number of tokens of it that are taken.
            num_layers: number of layers.
        """
        layers = [DynamicLayer() for _ in range(num_layers)]
        if (longest := max(lengths)) == 0:
            return layers
        some = next(path for path, wanted in zip(paths, lengths, strict=True) if wanted)[0][0].states
        states = some.new_zeros(len(paths), longest, some.shape[1])
        for row, path, wanted in zip(states, paths, lengths, strict=True):
            at = longest - wanted
            for node, count in path:
                taken = node.states[: min(count, longest - at)]
                row[at : at + len(taken)] = taken
                at += len(taken)
        parts = iter(states.split([heads * width for heads, width in self._shapes], dim=2))
        shapes = iter(self._shapes)
        for layer in layers:
            keys, values = (next(parts).unflatten(2, next(shapes)).transpose(1, 2) for _ in range(2))
            layer.update(keys, values)
        return layers

    def keep(
        self, layers: Sequence[Pair], rows: Sequence[int], ids: Sequence[list[int]], known: Sequence[int]
    ) -> None:  # fmt: skip
        """Keep the new tokens of some rows.

        Args:
            layers: keys and values of a batch, whose final column is the final token of each of the rows.
            rows: R rows of it.
            ids: R lists of all tokens of a row.
            known: number of tokens at the start that were known when the row began.
        """
        if not rows or not self._cache.max_bytes:
            return
        longest = max(len(row) - first for row, first in zip(ids, known, strict=True))
        parts = [part for layer in layers for part in layer]
        self._shapes = [(part.shape[1], part.shape[3]) for part in parts]
        chosen = torch.tensor(rows, device=parts[0].device)
        new = [part[:, :, -longest:][chosen].transpose(1, 2).flatten(2) for part in parts]
        states = torch.cat(new, dim=2).flatten(0, 1)
        numbers = torch.arange(len(states), device=states.device).view(len(ids), longest)
        for row, first, own in zip(ids, known, numbers, strict=True):
            self._cache.add(row, first, own[longest - (len(row) - first) :], states)
