"""Solutions → encoded examples on disk, and what is done to them as a whole before they are divided into batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from stepverify.data.encode import Example, LeftOut
from stepverify.data.shelf import Shelf
from stepverify.readers import Reader
from stepverify.readers.base import Tally
from stepverify.records import InputError, Solution


def encode_all(reader: Reader, encode: Callable[[Solution], Example], name: str) -> Shelf:
    """Encode every solution of a reader; what is left out is counted by reason and reported.

    Raises:
        InputError: bad data, or nothing left.
    """
    examples, left_out, total = Shelf(), Tally(), 0
    for record in reader.solutions():
        total += 1
        try:
            examples.append(encode(record))
        except LeftOut as reason:
            left_out.note(str(reason), record.id)
    left_out.add(reader.left_out)
    total += reader.left_out.total()
    if not examples:
        raise InputError(
            f"{name}: none of {total} solutions of {type(reader).__name__} can be used: "
            + (str(left_out) or "the reader is empty")
        )
    rank_zero_info(
        f"{name}: {len(examples):,} of {total:,} solutions, {examples.lengths.sum():,} tokens"
        + (f"; left out: {left_out}" if left_out else "")
        + (f"; noted: {reader.noted}" if reader.noted else "")
    )
    examples.left_out = left_out
    return examples


def add_language(examples: Shelf, language: Shelf, ratio: float, seed: int) -> None:
    """Mix in what is learned as language: ``ratio`` of them for each example (Cobbe et al. 2021, section 4.2: 1).

    Each is taken as often as any other, give or take once; which ones are taken once more is drawn with ``seed``.
    What stands in one batch several times is computed once and weighs more.
    """
    total = max(1, round(ratio * len(examples)))
    order = np.random.default_rng(seed).permutation(len(language))
    times, more = divmod(total, len(language))
    for place, i in enumerate(order.tolist()):
        if count := times + (place < more):
            examples.append(language[i])
            examples.repeat(len(examples) - 1, count - 1)


def balance(examples: Shelf) -> None:
    """Have positions with a target of 1/2 and more weigh as much in all as those below; the total stays.

    Raises:
        InputError: all targets are on one side.
    """
    sums = np.zeros(2)
    for example in examples:
        np.add.at(sums, _sides(example), _weights(example))
    if not sums.all():
        raise InputError(f"data.label_mix: balanced, but every label is {'right' if sums[1] else 'wrong'}")
    factors = sums.sum() / (2 * sums)
    for i, example in enumerate(examples):
        if not example.positions:
            continue
        example.weights = (factors[_sides(example)] * _weights(example)).tolist()
        examples[i] = example


def _sides(example: Example) -> np.ndarray:
    return (np.array(example.targets) >= 0.5).astype(int)


def _weights(example: Example) -> np.ndarray:
    return np.ones(len(example.positions)) if example.weights is None else np.array(example.weights)
