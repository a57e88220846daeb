"""Readers → examples → batches, for whatever objective the module trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, cast

import lightning
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from stepverify.data.batch import Batch, collate
from stepverify.data.batching import LengthBatches
from stepverify.data.encode import Example, LeftOut, SolutionEncoder
from stepverify.readers import Reader
from stepverify.records import InputError, Solution


class Objective(Protocol):
    """What the data needs to know of a module."""

    encoder: SolutionEncoder

    def encode(self, record: Solution, *, labelled: bool) -> Example:
        """Encode one record, or raise :class:`LeftOut`."""
        ...


class SolutionData(lightning.LightningDataModule):
    """Solutions for fit, validate, test and predict.

    The module says how a record is encoded, so data and objective cannot disagree.

    Args:
        train: solutions to learn from.
        validation: solutions to validate on.
        test: solutions for ``stepverify test``.
        predict: solutions for ``stepverify predict``.
        batch_size: solutions in a batch on each device.
        eval_batch_size: the same outside training; None takes ``batch_size``.
        num_workers: processes that collate; 0 collates in the training process.
        seed: of the order of the training batches.
    """

    def __init__(
        self,
        train: Reader | None = None,
        validation: Reader | None = None,
        test: Reader | None = None,
        predict: Reader | None = None,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.readers = {"fit": train, "validate": validation, "test": test, "predict": predict}
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.num_workers, self.seed = num_workers, seed
        self.examples: dict[str, list[Example]] = {}

    def setup(self, stage: str) -> None:
        """Read and encode everything this stage needs: bad data fails before the model is loaded."""
        assert self.trainer is not None
        objective = self._objective()
        stage = str(getattr(stage, "value", stage))
        for name in ("fit", "validate") if stage == "fit" else (stage,):
            reader = self.readers[name]
            if reader is None:
                if name == stage:
                    key = {"fit": "train", "validate": "validation"}.get(name, name)
                    raise InputError(f"data.{key}: no reader is given")
                continue
            if name not in self.examples:
                self.examples[name] = encode_all(reader, objective.encode, name)

    def _objective(self) -> Objective:
        assert self.trainer is not None
        return cast(Objective, self.trainer.lightning_module)

    def _loader(self, name: str, cls: Callable[..., DataLoader], *, shuffle: bool) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        examples = self.examples[name]
        pad_id = self._objective().encoder.tokenizer.pad_token_id or 0
        batches = LengthBatches(
            [len(e.input_ids) for e in examples], self.batch_size if shuffle else self.eval_batch_size,
            shuffle=shuffle, seed=self.seed, rank=trainer.global_rank, world_size=trainer.world_size,
        )  # fmt: skip
        collate_fn: Callable[[Sequence[Example]], Batch] = partial(collate, pad_id=pad_id)
        return cls(examples, batch_sampler=batches, collate_fn=collate_fn, num_workers=self.num_workers)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; the loader's state is part of the checkpoint, so resume goes on mid-epoch."""
        return self._loader("fit", StatefulDataLoader, shuffle=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Validation batches, longest first."""
        return self._loader("validate", DataLoader, shuffle=False) if "validate" in self.examples else []

    def test_dataloader(self) -> DataLoader:
        """Test batches."""
        return self._loader("test", DataLoader, shuffle=False)

    def predict_dataloader(self) -> DataLoader:
        """Batches to score."""
        return self._loader("predict", DataLoader, shuffle=False)


def encode_all(reader: Reader, encode: Callable[..., Example], name: str) -> list[Example]:
    """Encode every solution of a reader; what is left out is counted by reason and reported.

    Raises:
        InputError: bad data, or nothing left.
    """
    examples, left_out, total = [], Counter[str](), 0
    for record in reader.solutions():
        total += 1
        try:
            examples.append(encode(record, labelled=name != "predict"))
        except LeftOut as reason:
            left_out[str(reason)] += 1
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
    if not examples:
        raise InputError(
            f"{name}: none of {total} solutions of {type(reader).__name__} can be used: "
            + (reasons or "the reader is empty")
        )
    tokens = sum(len(e.input_ids) for e in examples)
    rank_zero_info(
        f"{name}: {len(examples):,} of {total:,} solutions, {tokens:,} tokens"
        + (f"; left out: {reasons}" if reasons else "")
    )
    return examples
