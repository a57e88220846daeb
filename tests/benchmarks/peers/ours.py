"""This project: Lightning modules, datamodule and trainer, packs of trees."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import lightning
import torch

from stepverify.data.batch import Batch
from stepverify.data.datamodule import SolutionData
from stepverify.data.packing import PrefixPacks
from stepverify.models import Backbone
from stepverify.modules import GeneratorModule, ProcessRewardModel, StepModule
from stepverify.readers import Solutions
from tests.benchmarks.peers.work import CLIP, LEARNING_RATE, MAX_LENGTH, Clock, Spec, Work

_RUN: dict[str, Any] = {
    "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False, "use_distributed_sampler": False,
}  # fmt: skip


class Timing(lightning.Callback):
    """Ticks after every batch; profiles all but the first one if it is asked to."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.clock, self.profiler = spec, None, None
        if spec.options.get("profile"):
            self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])

    def _start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.clock = Clock(self.spec, pl_module.model.backbone)

    on_train_start = on_predict_start = _start

    def on_train_batch_end(self, trainer, pl_module, outputs, batch: Batch, batch_idx: int) -> None:
        generator = self.spec.task == "sft"
        vocabulary = pl_module.model.output_matrix()[0].shape[0]
        begin, end, start, stop, causal = batch.tree.segments.calls.T
        products = torch.where(causal == 1, (end - begin) ** 2, 2 * (end - begin) * (stop - start))
        self.clock.tick(Work(
            len(batch.records), batch.num_tokens, len(batch.input_ids), int(products.sum()),
            len(batch.scored.index) * (vocabulary if generator else 2),
        ))  # fmt: skip
        if self.profiler and len(self.clock.times) == 1:
            self.profiler.start()

    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def budget(spec: Spec) -> int:
    """The largest pack of tokens that divides the data into as many steps as the others make."""
    sequences, groups = [e.input_ids for e in spec.examples], [e.record.problem_id for e in spec.examples]
    low, high = max(map(len, sequences)), sum(map(len, sequences))
    while low < high:
        middle = (low + high + 1) // 2
        enough = len(PrefixPacks(sequences, groups, middle)(None)) >= spec.steps
        low, high = (middle, high) if enough else (low, middle - 1)
    return low


def main() -> None:
    spec = Spec.from_argv()
    module: StepModule = (GeneratorModule if spec.task == "sft" else ProcessRewardModel)(
        Backbone(path=spec.model, **spec.options.get("backbone", {})), spec.encoder.template, MAX_LENGTH,
        lambda parameters: torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True),
    )  # fmt: skip
    pack = spec.options.get("pack_tokens") or budget(spec)
    reader = Solutions(spec.data)
    data = SolutionData(train=reader, predict=reader, pack_tokens=pack, eval_pack_tokens=pack)
    timing = Timing(spec)
    devices = spec.options.get("devices", 1)
    trainer = lightning.Trainer(
        callbacks=[timing], max_epochs=1, max_steps=spec.options.get("batches", -1), gradient_clip_val=CLIP,
        accelerator=spec.device, precision="bf16-mixed" if spec.device == "cuda" else "32-true",
        devices=devices, strategy="ddp" if devices > 1 else "auto", **_RUN,
    )  # fmt: skip
    if spec.task == "score":
        trainer.predict(module, data, return_predictions=False)
    else:
        trainer.fit(module, data)
    if timing.profiler:
        timing.profiler.stop()
        spec.options["operators"] = operators(timing.profiler)
    timing.clock.done = [everywhere(trainer, work) for work in timing.clock.done]
    if trainer.is_global_zero:
        timing.clock.report(pack_tokens=pack, operators=spec.options.get("operators"))


def everywhere(trainer: lightning.Trainer, work: Work) -> Work:
    """The work of all processes."""
    counts = torch.tensor(list(asdict(work).values()))
    return Work(*trainer.strategy.reduce(counts, reduce_op="sum").tolist())


def operators(profiler: torch.profiler.profile, top: int = 14) -> list[tuple[str, float, int]]:
    """The operators that take longest themselves: name, share, calls."""
    events = sorted(profiler.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(e.self_cpu_time_total for e in events)
    return [(e.key, e.self_cpu_time_total / total, e.count) for e in events[:top]]


if __name__ == "__main__":
    main()
