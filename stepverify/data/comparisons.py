"""Count the problems whose solutions a loss compares with each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from stepverify.data.store import ExampleStore
from stepverify.losses import BetweenSolutions, Loss
from stepverify.records import InputError


class Comparisons:
    """Describe which examples a loss between solutions compares.

    Args:
        groups: (E,) number of the problem of each example.
        correct: (E,) 1 correct, 0 incorrect, nan for an example that is not compared, such as one of the LM loss.
        loss: name of the loss, for messages.
    """

    def __init__(self, groups: np.ndarray, correct: np.ndarray, loss: str = "") -> None:
        self.groups, self.correct, self.loss = groups, correct, loss
        self.mixed = self._mixed(np.arange(len(groups)))

    @classmethod
    def of(cls, examples: ExampleStore, loss: BetweenSolutions) -> Comparisons:
        """Read the targets of all examples once."""
        correct = [float(loss.is_correct(e)) if e.positions else np.nan for e in examples]
        return cls(examples.groups, np.array(correct), type(loss).__name__)

    def _mixed(self, batch: np.ndarray) -> np.ndarray:
        groups, correct = self.groups[batch], self.correct[batch]
        return np.intersect1d(groups[correct == 1], groups[correct == 0])

    def count(self, batch: np.ndarray) -> float:
        """Count the problems of a batch with correct and incorrect solutions in it."""
        return float(len(self._mixed(batch)))

    def num_divided(self, batches: Sequence[np.ndarray]) -> int:
        """Count the problems with both kinds of solutions that stand in several batches."""
        compared = ~np.isnan(self.correct)
        parts = np.concatenate([np.unique(self.groups[batch[compared[batch]]]) for batch in batches])
        found, times = np.unique(parts, return_counts=True)
        return len(np.intersect1d(found[times > 1], self.mixed))

    def warn_of_divided(self, batches: Sequence[np.ndarray], key: str) -> None:
        """Warn if the batches divide problems; ``key`` of ``data`` is the size of a batch."""
        if divided := self.num_divided(batches):
            rank_zero_warn(
                f"data.{key}: {divided:,} of {len(self.mixed):,} problems are divided between batches: solutions are "
                "compared within each part, which counts as a problem of its own; larger packs on fewer devices keep "
                "them together"
            )

    def check_packs(self, packs: bool) -> None:
        """Refuse a model that computes each solution alone."""
        if not packs:
            raise InputError(
                f"loss: {self.loss} compares the solutions of a problem, which only prefix packs keep together; this "
                "model does not support them"
            )

    def split(self, batches: Sequence[np.ndarray]) -> tuple[int, list[np.ndarray]]:
        """Split the largest batch near its middle, between two problems.

        Only if every batch is of one problem, a problem is divided.

        Returns:
            Index of the batch, and its two parts.
        """
        sizes = np.array([len(batch) for batch in batches])
        several = np.array([len(np.unique(self.groups[batch])) > 1 for batch in batches])
        largest = int(np.argmax(np.where(several, sizes, 0) if several.any() else sizes))
        batch = batches[largest]
        if not several.any():
            return largest, np.array_split(batch, 2)
        batch = batch[np.argsort(self.groups[batch], kind="stable")]
        borders = np.flatnonzero(np.diff(self.groups[batch])) + 1
        at = borders[np.argmin(np.abs(borders - len(batch) / 2))]
        return largest, [batch[:at], batch[at:]]

    def summary(self) -> str:
        """Say how many problems are compared, and why the others are not."""
        of: list[set[int]] = [{*self.groups[self.correct == kind].tolist()} for kind in (1, 0)]
        text = f"{len(self.mixed):,} of {len(of[0] | of[1]):,} problems have correct and incorrect solutions to compare"
        for kind, own, other in (("correct", of[0], of[1]), ("incorrect", of[1], of[0])):
            if alone := len(own - other):
                text += f"; {alone:,} with {kind} ones alone teach nothing"
        return text


def check_settings(loss: Loss, shared_once: bool, balanced: bool, packed: bool) -> None:
    """Refuse settings of ``data`` that a loss would ignore, or under which it compares nothing.

    Args:
        loss: the loss that is trained.
        shared_once: ``prefix_weighting`` is ``once``.
        balanced: ``class_weights`` are not ``natural``.
        packed: ``pack_tokens`` is given.

    Raises:
        InputError: with the key to change.
    """
    name = type(loss).__name__
    if not loss.takes_weights:
        for refused, key, value in (
            (shared_once, "prefix_weighting", "per_solution"),
            (balanced, "class_weights", "natural"),
        ):
            if refused:
                raise InputError(f"data.{key}: {name} does not weigh single positions; set it to {value}")
    if isinstance(loss, BetweenSolutions) and not packed:
        raise InputError(
            f"data.pack_tokens: not given, but {name} compares the solutions of a problem, which batches of batch_size "
            "solutions scatter; set it, for example to 8192"
        )


def comparisons_of(examples: ExampleStore, loss: Loss, key: str) -> Comparisons | None:
    """Count what a ranking loss can compare, and say what teaches it nothing.

    Args:
        examples: with targets.
        loss: that is trained.
        key: of ``data``, for messages.

    Returns:
        The comparisons of a loss between solutions; None for any other.

    Raises:
        InputError: there is nothing to compare in ``train``.
    """
    name, found = type(loss).__name__, None
    if isinstance(loss, BetweenSolutions):
        found = Comparisons.of(examples, loss)
        rank_zero_info(f"{key}: {name}: {found.summary()}")
        nothing = not len(found.mixed)
    else:
        own = examples.weights[examples.weights[:, 1] == 0, 0]  # others are of the LM loss
        unused = int((own == 0).sum())
        if unused:
            rank_zero_info(f"{key}: {name}: {unused:,} of {len(own):,} solutions teach nothing: nothing to compare")
        nothing = unused == len(own)
    if nothing and key == "train":
        raise InputError(f"data.train: {name} finds nothing to compare")
    return found
