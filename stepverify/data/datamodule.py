"""Read, encode and batch solutions for the objective that the module trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, cast

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from stepverify.data.batch import Batch, collate
from stepverify.data.batching import Batching, BatchSampler, LengthBuckets, PaddedRows, Plan
from stepverify.data.cache import cache_folder
from stepverify.data.comparisons import Comparisons, check_settings, comparisons_of
from stepverify.data.encode import Example, SolutionEncoder
from stepverify.data.fingerprint import Unknown, options_of
from stepverify.data.packing import PrefixPacks, count_once
from stepverify.data.prepare import ClassWeights, add_lm_examples, encode_all, weigh
from stepverify.data.store import ExampleStore
from stepverify.losses import Loss
from stepverify.readers import Reader
from stepverify.records import InputError, Solution

_KEYS = {"fit": "train", "validate": "validation"}  # stages whose reader has another name


class Objective(Protocol):
    """Describe what the data needs from a module."""

    encoder: SolutionEncoder
    loss: Loss
    pad_to: int
    lm_weight: float

    def encode(self, record: Solution, *, labelled: bool) -> Example:
        """Encode one record, or raise :class:`LeftOut`."""
        ...

    def encoding_options(self) -> dict[str, Any]:
        """List what :meth:`encode` depends on besides the record and the encoder, as plain values."""
        ...

    def packs(self, longest: int) -> bool:
        """Check whether sequences of up to ``longest`` tokens can share prefixes."""
        ...


class SolutionData(lightning.LightningDataModule):
    """Provide solutions for fit, validate, test and predict.

    The module encodes the records, so data and objective cannot disagree. Encoded examples are kept on disk, where
    all processes of a machine, and later runs on the same data, read them (:mod:`stepverify.data.cache`).

    Args:
        train: solutions to train on.
        validation: solutions to validate on.
        test: solutions for ``stepverify test``.
        predict: solutions for ``stepverify predict``.
        lm: solutions for the LM loss, trained on besides the labels of ``train`` with the module's ``lm_weight``: the
            reference solutions (Cobbe et al. 2021, section 4.2), or correct samples.
        lm_ratio: number of ``lm`` solutions per solution of ``train``; they are repeated if there are too few.
        batch_size: solutions in a training batch on each device, sampled from all problems.
        pack_tokens: tokens in a training batch on each device, instead of ``batch_size``: a prefix pack holds all
            solutions of a problem, with shared prefixes computed and counted once. Models without support for prefix
            packs get solutions of similar length, counted in full and with padding.
        eval_pack_tokens: tokens in a batch outside training; more if a single solution is longer.
        prefix_weighting: weight in the loss of a position that several solutions of a problem share: once
            ``per_solution``, as if they were computed separately, or ``once`` in total.
        class_weights: weights of the labels in the training loss: as often as they occur (``natural``), all classes
            equal in total (``balanced``, computed from the training data), or a weight for each class.
        num_workers: processes that collate batches; 0 collates in the training process.
        seed: seed of the order of training batches.
        cache: keep encoded examples for later runs: in the folder of this path, or with ``true`` in ``examples`` below
            ``$STEPVERIFY_CACHE``, by default ``~/.cache/stepverify``. Beyond ``$STEPVERIFY_CACHE_GIB``, by default
            50, the least recently used tables are removed. ``false`` encodes anew in each process.
    """

    def __init__(
        self,
        train: Reader | None = None,
        validation: Reader | None = None,
        test: Reader | None = None,
        predict: Reader | None = None,
        lm: Reader | None = None,
        lm_ratio: float = 1.0,
        batch_size: int = 32,
        pack_tokens: int | None = None,
        eval_pack_tokens: int = 8192,
        prefix_weighting: Literal["per_solution", "once"] = "per_solution",
        class_weights: Literal["natural", "balanced"] | ClassWeights = "natural",
        num_workers: int = 0,
        seed: int = 0,
        cache: bool | str = True,
    ) -> None:
        super().__init__()
        if lm_ratio <= 0:
            raise InputError(f"data.lm_ratio: expected more than 0, got {lm_ratio}")
        if isinstance(class_weights, ClassWeights):
            class_weights.check()
        self.lm, self.lm_ratio, self.class_weights = lm, lm_ratio, class_weights
        self.readers = {"fit": train, "validate": validation, "test": test, "predict": predict}
        self.batch_size, self.pack_tokens, self.eval_pack_tokens = batch_size, pack_tokens, eval_pack_tokens
        self.prefix_weighting, self.num_workers, self.seed, self.cache = prefix_weighting, num_workers, seed, cache
        self.examples: dict[str, ExampleStore] = {}
        self.comparisons: dict[str, Comparisons | None] = {}  # of a loss between solutions
        self.learned: dict[str, frozenset[str]] = {}  # train, lm → digests of their problems

    def setup(self, stage: str) -> None:
        """Read and encode all data of a stage before the model loads.

        So bad data fails early.
        """
        from stepverify.callbacks.together import together

        assert self.trainer is not None
        with together(self.trainer):  # where one rank cannot read its data, the others would wait for it
            self._setup(str(getattr(stage, "value", stage)))

    def _setup(self, stage: str) -> None:
        balanced = stage == "fit" and self.class_weights != "natural"
        packed = stage != "fit" or self.pack_tokens is not None
        if stage != "predict":
            check_settings(self._objective().loss, self.prefix_weighting == "once", balanced, packed)
        for name in ("fit", "validate") if stage == "fit" else (stage,):
            reader = self.readers[name]
            if reader is None:
                if name == stage:
                    raise InputError(f"data.{_KEYS.get(name, name)}: no reader is given")
                continue
            if name not in self.examples:
                self.examples[name] = self._encode(reader, name)
            self._check_ranks(name)
        if stage == "fit" and "validate" in self.examples:
            self._warn_of_overlap()

    def _warn_of_overlap(self) -> None:
        """Warn about validation problems that are also trained on.

        Their metrics are too good.
        """
        validation = self.examples["validate"].digests
        for key, learned in self.learned.items():
            if shared := [problem_id for text, problem_id in validation.items() if text in learned]:
                rank_zero_warn(
                    f"data.validation: {len(shared):,} of {len(validation):,} problems are in data.{key} too, "
                    f"{shared[0]} for one: its metrics are too good for new problems; `exclude` or folds separate them"
                )

    def _check_ranks(self, name: str) -> None:
        assert self.trainer is not None
        count, ranks = len(self.examples[name]), self.trainer.world_size
        if count < ranks:
            raise InputError(
                f"data.{_KEYS.get(name, name)}: {count} solutions cannot be divided among {ranks} devices; "
                f"take {count} devices at most (trainer.devices)"
            )

    def _encode(self, reader: Reader, name: str) -> ExampleStore:
        objective, labelled = self._objective(), name != "predict"
        joint = name == "fit" and objective.lm_weight > 0
        if joint and self.lm is None:
            raise InputError(f"model.lm_weight is {objective.lm_weight}, but data.lm names no solutions")

        def encode(record: Solution) -> Example:
            return objective.encode(record, labelled=labelled)

        has_own = labelled and type(objective.loss).denominator is not Loss.denominator
        denominator = objective.loss.denominator if has_own else None
        examples = self._encoded(reader, encode, name, _options(objective, labelled), denominator)
        if name == "fit":
            self.learned["train"] = frozenset(examples.digests)
        if joint:
            assert self.lm is not None
            lm = self._encoded(self.lm, objective.encoder.lm, "lm", {"objective": "lm"})
            self.learned["lm"] = frozenset(lm.digests)
            add_lm_examples(examples, lm, self.lm_ratio, self.seed)
        if self.prefix_weighting == "once" and labelled:
            count_once(examples)
        if self.class_weights != "natural" and name == "fit":
            weigh(examples, self.class_weights if isinstance(self.class_weights, ClassWeights) else None)
        if labelled:
            self.comparisons[name] = comparisons_of(examples, objective.loss, _KEYS.get(name, name))
        return examples

    def _encoded(
        self, reader: Reader, encode: Callable[[Solution], Example], name: str,
        options: dict[str, Any] | Unknown, denominator: Callable[[Example], float | None] | None = None,
    ) -> ExampleStore:  # fmt: skip
        return encode_all(
            reader, encode, name, encoder=self._objective().encoder, options=options, cache=cache_folder(self.cache),
            denominator=denominator,
        )  # fmt: skip

    def _objective(self) -> Objective:
        assert self.trainer is not None
        return cast(Objective, self.trainer.lightning_module)

    def _loader(self, name: str, cls: Callable[..., DataLoader], *, shuffle: bool) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        examples = self.examples[name]
        ranks = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
        packs = self._objective().packs(int(examples.lengths.max()))
        comparisons = self.comparisons.get(name)
        if comparisons is not None:
            comparisons.check_packs(packs)
        plans = BatchSampler(
            self._maker(examples, shuffle, packs), examples.lengths, examples.weights, shuffle=shuffle, seed=self.seed,
            rank=ranks["rank"], num_ranks=ranks["num_replicas"],
            accumulate=trainer.accumulate_grad_batches if shuffle else 1, comparisons=comparisons,
        )  # fmt: skip
        if comparisons is not None:
            comparisons.warn_of_divided(plans.batches(), "pack_tokens" if shuffle else "eval_pack_tokens")
        objective = self._objective()
        lm = name == "fit" and objective.lm_weight > 0
        batches = _Batches(examples, packs, objective.pad_to, lm=lm)
        pins = trainer.strategy.root_device.type == "cuda"
        return cls(batches, sampler=plans, batch_size=None, num_workers=self.num_workers, pin_memory=pins)

    def _maker(self, examples: ExampleStore, train: bool, packs: bool) -> Batching:
        budget = self.pack_tokens if train else self.eval_pack_tokens
        if budget is None:
            return LengthBuckets(examples.lengths, self.batch_size)
        if train and (longest := examples.lengths.max()) > budget:
            raise InputError(f"data.pack_tokens: the longest solution has {longest} tokens, a pack only {budget}")
        if not packs:
            return PaddedRows(examples.lengths, budget)
        return PrefixPacks(examples.sequences, examples.groups.tolist(), budget)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Copy a batch, without waiting if its memory is pinned.

        Lightning would wait for each of its tensors.
        """
        return batch.to(device, non_blocking=batch.input_ids.is_pinned())

    def train_dataloader(self) -> DataLoader:
        """Load shuffled batches.

        The loader's state is part of the checkpoint, so training resumes within an epoch.
        """
        return self._loader("fit", StatefulDataLoader, shuffle=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Load validation batches, largest first."""
        return self._loader("validate", DataLoader, shuffle=False) if "validate" in self.examples else []

    def test_dataloader(self) -> DataLoader:
        """Load test batches."""
        return self._loader("test", DataLoader, shuffle=False)

    def predict_dataloader(self) -> DataLoader:
        """Load batches to score."""
        return self._loader("predict", DataLoader, shuffle=False)


def _options(objective: Objective, labelled: bool) -> dict[str, Any] | Unknown:
    try:
        return options_of(objective, labelled)
    except Unknown as reason:
        return reason


class _Batches(Dataset):
    """Collate the examples of a plan into a batch."""

    def __init__(self, examples: ExampleStore, packs: bool, pad_to: int, *, lm: bool) -> None:
        self.examples, self.packs, self.pad_to, self.lm = examples, packs, pad_to, lm

    def __getitem__(self, plan: Plan) -> Batch:
        examples = [self.examples[i] for i in plan.indices]
        return collate(
            examples, shared=self.packs, pad_to=self.pad_to, loss_denominators=plan.loss_denominators, lm=self.lm
        )
