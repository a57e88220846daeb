"""Readers → examples → batches, for whatever objective the module trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, cast

import lightning
import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from stepverify.data.batch import Batch, collate
from stepverify.data.batching import BatchMaker, ByLength, Plan, Plans
from stepverify.data.encode import Example, LeftOut, SolutionEncoder
from stepverify.data.packing import ByTokens, count_once
from stepverify.readers import Reader
from stepverify.records import InputError, Solution


class Objective(Protocol):
    """What the data needs to know of a module."""

    encoder: SolutionEncoder
    pad_to: int

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
        batch_size: solutions in a training batch on each device, drawn from all problems.
        pack_tokens: tokens in a training batch on each device, in place of ``batch_size``: all solutions of a problem
            together, their shared prefixes computed and counted once.
        eval_pack_tokens: the same outside training; more where one solution is longer.
        shared: what a position counts that several solutions of a problem share: once for ``each`` of them, as if they
            were computed apart, or ``once`` in all.
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
        pack_tokens: int | None = None,
        eval_pack_tokens: int = 8192,
        shared: Literal["each", "once"] = "each",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.readers = {"fit": train, "validate": validation, "test": test, "predict": predict}
        self.batch_size, self.pack_tokens, self.eval_pack_tokens = batch_size, pack_tokens, eval_pack_tokens
        self.shared, self.num_workers, self.seed = shared, num_workers, seed
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
                if self.shared == "once" and name != "predict":
                    count_once(self.examples[name])

    def _objective(self) -> Objective:
        assert self.trainer is not None
        return cast(Objective, self.trainer.lightning_module)

    def _loader(self, name: str, cls: Callable[..., DataLoader], *, shuffle: bool) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        examples = self.examples[name]
        ranks = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
        plans = Plans(
            self._maker(examples, shuffle), [len(e.input_ids) for e in examples],
            np.array([e.weight() for e in examples]), shuffle=shuffle, seed=self.seed, rank=ranks["rank"],
            num_ranks=ranks["num_replicas"], accumulate=trainer.accumulate_grad_batches if shuffle else 1,
        )  # fmt: skip
        batches = _Batches(examples, self._objective().pad_to)
        return cls(batches, sampler=plans, batch_size=None, num_workers=self.num_workers)

    def _maker(self, examples: Sequence[Example], train: bool) -> BatchMaker:
        sequences = [e.input_ids for e in examples]
        lengths = [len(s) for s in sequences]
        budget = self.pack_tokens if train else self.eval_pack_tokens
        if budget is None:
            return ByLength(lengths, self.batch_size)
        if train and max(lengths) > budget:
            raise InputError(f"data.pack_tokens: the longest solution has {max(lengths)} tokens, a pack only {budget}")
        return ByTokens(sequences, [e.record.problem_id for e in examples], budget)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; the loader's state is part of the checkpoint, so resume goes on mid-epoch."""
        return self._loader("fit", StatefulDataLoader, shuffle=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Validation batches, largest first."""
        return self._loader("validate", DataLoader, shuffle=False) if "validate" in self.examples else []

    def test_dataloader(self) -> DataLoader:
        """Test batches."""
        return self._loader("test", DataLoader, shuffle=False)

    def predict_dataloader(self) -> DataLoader:
        """Batches to score."""
        return self._loader("predict", DataLoader, shuffle=False)


class _Batches(Dataset):
    """Plan → batch."""

    def __init__(self, examples: Sequence[Example], pad_to: int) -> None:
        self.examples, self.pad_to = examples, pad_to

    def __getitem__(self, plan: Plan) -> Batch:
        return collate([self.examples[i] for i in plan.indices], pad_to=self.pad_to, norms=plan.norms)


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
