"""TRL's PRMTrainer and SFTTrainer, on the same ids. Needs TRL, which the benchmark installs beside the environment.

Options: ``packing`` (SFT) to this length, one pack a forward pass, accumulated; ``checkpointing``; ``random_order``.
Without the latter two, solutions of one length go together and nothing is recomputed: what is fastest on a CPU. The
benchmark sorts by itself: ``group_by_length`` of transformers leaves so small an epoch in random order.
"""

from __future__ import annotations

import random
import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, TrainerCallback

from tests.benchmarks.peers.work import CLIP, LEARNING_RATE, Clock, Spec, Work


class Timing(TrainerCallback):
    """Ticks after every optimizer step."""

    def __init__(self, clock: Clock, taken: list[Work], accumulate: int) -> None:
        self.clock, self.taken, self.accumulate = clock, taken, accumulate

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        at = len(self.clock.times) * self.accumulate  # the loader is ahead of the trainer
        self.clock.tick(sum(self.taken[at : at + self.accumulate], Work()))


def main() -> None:
    spec = Spec.from_argv()
    packing, rows = spec.options.get("packing"), len(spec.examples) // spec.steps
    tokenizer = spec.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    accumulate = 1
    if packing:
        accumulate = max(1, round(sum(len(e.input_ids) for e in spec.examples) / spec.steps / packing))
    common: dict[str, Any] = {
        "learning_rate": LEARNING_RATE, "max_grad_norm": CLIP, "optim": "adamw_torch_fused", "num_train_epochs": 1,
        "per_device_train_batch_size": 1 if packing else rows, "gradient_accumulation_steps": accumulate,
        "gradient_checkpointing": bool(spec.options.get("checkpointing")), "bf16": spec.device == "cuda", "use_cpu": spec.device == "cpu",
        "save_strategy": "no", "report_to": [], "disable_tqdm": True, "max_length": packing or 4096,
        "dataloader_pin_memory": spec.device == "cuda",
        "train_sampling_strategy": "random" if packing or spec.options.get("random_order") else "sequential",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        trainer = (sft if spec.task == "sft" else prm)(spec, folder, common)
        clock, taken = Clock(spec, trainer.model), list[Work]()
        trainer.data_collator = counting(spec, trainer.data_collator, taken, trainer.model.config.vocab_size)
        trainer.add_callback(Timing(clock, taken, accumulate))
        trainer.train()
        clock.report()


def prm(spec: Spec, folder: str, common: dict[str, Any]) -> Any:
    """A two-label token classifier, labelled at the tags."""
    from trl.experimental.prm import PRMConfig, PRMTrainer

    rows = []
    for e in spec.examples:
        labels = [-100] * len(e.input_ids)
        for at, target in zip(e.positions, e.targets or [], strict=True):
            labels[at] = int(target >= 0.5)
        rows.append({"input_ids": e.input_ids, "labels": labels})
    rows = by_length(rows, spec.steps)
    model = AutoModelForTokenClassification.from_pretrained(spec.model, num_labels=2, dtype=torch.float32)
    return PRMTrainer(
        model=model, args=PRMConfig(folder, **common), train_dataset=Dataset.from_list(rows),
        processing_class=spec.tokenizer,
    )  # fmt: skip


def sft(spec: Spec, folder: str, common: dict[str, Any]) -> Any:
    """Loss on the solution alone; chunked_nll, TRL's own default, computes logits there only."""
    from trl import SFTConfig, SFTTrainer

    rows = [{"input_ids": ids, "completion_mask": [int(x != -100) for x in labels]} for ids, labels in spec.rows()]
    rows = by_length(rows, spec.steps)
    args = SFTConfig(folder, packing="packing" in spec.options, completion_only_loss=True, **common)
    model = AutoModelForCausalLM.from_pretrained(spec.model, dtype=torch.float32)
    return SFTTrainer(
        model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=spec.tokenizer
    )  # fmt: skip


def by_length(rows: list[dict[str, Any]], steps: int) -> list[dict[str, Any]]:
    """Batches of rows that are alike in length, in random order."""
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    size = len(rows) // steps
    starts = random.Random(0).sample(range(0, len(rows), size), -(-len(rows) // size))
    return [row for start in starts for row in ordered[start : start + size]]


def counting(spec: Spec, collate: Any, taken: list[Work], vocabulary: int) -> Any:
    """Notes what goes into each batch."""

    def collated(features: list[dict[str, Any]]) -> Any:
        batch = collate(features)
        ids, learned = batch["input_ids"], int((batch["labels"] != -100).sum())
        lengths = [n for f in features for n in f.get("seq_lengths") or [len(f["input_ids"])]]
        # TRL reads a solution to its end, the others to the token before.
        tokens = sum(lengths) - len(lengths) * (spec.task == "sft")
        logits = learned * vocabulary if spec.task == "sft" else 2 * ids.numel()
        taken.append(Work(len(lengths), tokens, ids.numel(), ids.shape[0] * ids.shape[1] ** 2, logits))
        return batch

    return collated


if __name__ == "__main__":
    main()
