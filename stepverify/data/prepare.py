"""Encode solutions to disk, and weight them before they are batched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from stepverify.data.encode import Example, LeftOut
from stepverify.data.shelf import Shelf
from stepverify.data.targets import NEUTRAL
from stepverify.readers import Reader
from stepverify.readers.base import ReasonCounter, once
from stepverify.records import InputError, Solution

_CLASSES = ("incorrect", "correct", "neutral")


@dataclass(frozen=True, kw_only=True)
class ClassWeights:
    """Weight scored positions in the training loss by their label.

    The loss is divided by the sum of the weights, so only their proportions matter. A soft target belongs to the nearer
    class, ``correct`` from 1/2 on.

    Attributes:
        incorrect: weight of an incorrect step, or of a position in an incorrect solution.
        correct: weight of a correct step or of a position in a correct solution.
        neutral: weight of a neutral step, if neutral is a class of its own.
    """

    incorrect: float = 1.0
    correct: float = 1.0
    neutral: float = 1.0

    def check(self) -> None:
        """Check the weights before data is read.

        Raises:
            InputError: a weight that is not above 0.
        """
        for name in _CLASSES:
            if not 0.0 < getattr(self, name) < float("inf"):
                raise InputError(f"data.class_weights.{name}: expected a weight above 0, got {getattr(self, name)}")


def encode_all(reader: Reader, encode: Callable[[Solution], Example], name: str) -> Shelf:
    """Encode a reader's solutions; count and log those left out.

    Raises:
        InputError: bad data, or no solution can be used.
    """
    examples, left_out, total = Shelf(), ReasonCounter(), 0
    for record in once(reader.solutions(), f"{name}: {type(reader).__name__}"):
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


def add_lm_examples(examples: Shelf, lm: Shelf, ratio: float, seed: int) -> None:
    """Add ``ratio`` LM examples per example.

    Cobbe et al. 2021, section 4.2, take 1.

    Each is repeated equally often, up to one; ``seed`` determines which are repeated once more. Repetitions in one
    batch are computed once and weigh more.
    """
    total = max(1, round(ratio * len(examples)))
    order = np.random.default_rng(seed).permutation(len(lm))
    times, more = divmod(total, len(lm))
    for place, i in enumerate(order.tolist()):
        if count := times + (place < more):
            examples.append(lm[i])
            examples.repeat(len(examples) - 1, count - 1)


def weigh(examples: Shelf, given: ClassWeights | None) -> None:
    """Multiply the weight of each position by that of its class.

    Args:
        examples: changed in place; LM positions keep their weights.
        given: the class weights; None gives all classes that occur equal total weight and keeps the overall total.

    Raises:
        InputError: None is given, and all targets are of one class.
    """
    if given is not None:
        factors = np.array([getattr(given, name) for name in _CLASSES])
    else:
        sums = np.zeros(len(_CLASSES))
        for example in examples:
            np.add.at(sums, _classes(example), _weights(example))
        if np.count_nonzero(sums) < 2:
            raise InputError(f"data.class_weights: balanced, but every label is {_CLASSES[sums.argmax()]}")
        factors = sums.sum() / np.count_nonzero(sums) / np.maximum(sums, 1e-9)
    for i, example in enumerate(examples):
        if not example.positions:
            continue
        example.weights = (factors[_classes(example)] * _weights(example)).tolist()
        examples[i] = example


def _classes(example: Example) -> np.ndarray:
    targets = np.array(example.targets)
    return np.where(targets == NEUTRAL, 2, targets >= 0.5).astype(int)


def _weights(example: Example) -> np.ndarray:
    return np.ones(len(example.positions)) if example.weights is None else np.array(example.weights)
