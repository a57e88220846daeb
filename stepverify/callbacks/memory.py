"""Choose gradient checkpointing from measured memory; explain out-of-memory errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from stepverify.callbacks import files
from stepverify.callbacks.together import any_rank, together
from stepverify.data.batch import Batch
from stepverify.data.batching import Plan
from stepverify.memory import (
    CudaMemory,
    HostMemory,
    StepMemory,
    bytes_of,
    describe_use,
    extrapolate,
    is_out_of_memory,
    size,
    state_bytes,
)
from stepverify.models.backbone import without_adapters
from stepverify.models.recompute import checkpoint_layers, checkpointing_of
from stepverify.models.rows import decoder_layers
from stepverify.modules import StepModule
from stepverify.records import InputError

MARGIN = 0.1  # share of the memory left for fragmentation and batches of other shapes
_NAMES: dict[Any, str] = {"pointwise": "pointwise operations", True: "on"}
_PARTS = (1 / 8, 1 / 4)  # shares of the largest batch, small enough to fit wherever checkpointing helps


class ChooseCheckpointing(lightning.Callback):
    """Choose ``backbone.gradient_checkpointing: auto`` by forward and backward passes before training.

    They run on an eighth and a quarter of the largest training batch, from which the need of the whole batch is
    extrapolated. No optimizer step is taken; random state, gradients and buffers are restored. If the predicted peak
    leaves less than a tenth of the memory free, pointwise operations are recomputed; if that is not enough, whole
    layers. All ranks choose the same, and a resumed run keeps the choice on devices with the same memory.
    """

    def __init__(self) -> None:
        self._choice: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the choice and the devices it depends on."""
        return {"choice": self._choice}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore an earlier choice."""
        self._choice = state_dict["choice"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Measure, choose and log the choice.

        Raises:
            InputError: the largest batch would not fit even with gradient checkpointing.
        """
        assert isinstance(pl_module, StepModule)
        if pl_module.backbone_source.gradient_checkpointing != "auto":
            self._choice = None
            return
        assert pl_module.model is not None
        base, source = without_adapters(pl_module.model.backbone), pl_module.backbone_source
        measure = Measurement(trainer, pl_module)
        devices = {"num_ranks": trainer.world_size, "device": measure.memory.name()}
        known = self._choice is not None and self._choice["on"] == devices
        if not any_rank(trainer, not known)[0]:
            assert self._choice is not None
            if chosen := self._choice["checkpointing"]:
                checkpoint_layers(base, pointwise=chosen == "pointwise")
                rank_zero_info(f"gradient checkpointing: {_NAMES[chosen]}, as before in this run")
            return
        need = plain = measure.step()
        self._choice = {"checkpointing": False, "on": devices}
        said = f"memory of a step of {measure.tokens:,} tokens: {plain.describe()} of {size(measure.capacity)}"
        if not any_rank(trainer, plain.peak() > (1 - MARGIN) * measure.capacity)[0]:
            rank_zero_info(f"{said}; gradient checkpointing: off")
            return
        if not getattr(base, "supports_gradient_checkpointing", False):
            rank_zero_warn(f"{said}; this model does not support gradient checkpointing")
            return
        for level in ("pointwise", True) if source.takes_pointwise else (True,):
            checkpoint_layers(base, pointwise=level == "pointwise")
            self._choice["checkpointing"] = level
            need = measure.step(recomputed=plain.activations // len(decoder_layers(base)))
            if not any_rank(trainer, need.peak() > (1 - MARGIN) * measure.capacity)[0]:
                break
        chosen = _NAMES[self._choice["checkpointing"]]
        rank_zero_info(f"{said}; gradient checkpointing: {chosen}, with it {need.describe()}")
        with together(trainer):
            if need.peak() > measure.capacity:
                raise InputError(
                    f"a step of {measure.tokens:,} tokens needs {size(need.peak())} with gradient checkpointing, "
                    f"and {measure.memory.name()} has {size(measure.capacity)}; {lower(trainer)}"
                )


class Measurement:
    """Measure the memory of a training step of this process.

    Args:
        trainer: with optimizer and data.
        module: in training mode.
    """

    def __init__(self, trainer: lightning.Trainer, module: StepModule) -> None:
        self.trainer, self.module = trainer, module
        device = trainer.strategy.root_device
        self.memory: CudaMemory | HostMemory = (
            CudaMemory(device) if device.type == "cuda" else HostMemory(_ranks_here(trainer))
        )
        # Measured before any computation, whose freed memory the allocator may keep.
        self.resident, self.capacity = self.memory.in_use(), self.memory.capacity()
        loader: Any = trainer.train_dataloader
        self.indices = loader.sampler.largest().indices
        self.tokens = loader.sampler.maker.most_tokens()
        self.fetch: Callable[[Plan], Batch] = loader.dataset.__getitem__

    def step(self, recomputed: int = 0) -> StepMemory:
        """Measure the memory of the passes, extrapolated to the largest batch.

        Args:
            recomputed: bytes of the checkpointed layer that is recomputed, if the measurement does not include it.
        """
        with self._as_before():
            batches = [self._part(share) for share in _PARTS]
            if self.memory.covers_backward:
                self._run(batches[0])  # the first run allocates gradients and workspaces, and compiles
            points = [(self._tokens(batch), self._run(batch)) for batch in batches]
            trained = [p for p in self.module.parameters() if p.requires_grad]
            gradients = bytes_of(trained)
            optimizer = self.trainer.optimizers[0]
            return StepMemory(
                resident=self.resident, gradients=sum(gradients), largest_gradient=max(gradients, default=0),
                states=state_bytes(optimizer, self.module.optimization.factory),
                activations=extrapolate(points, self.tokens, quadratic=self._is_quadratic())
                + (0 if self.memory.covers_backward else recomputed),
                accumulated=self.trainer.accumulate_grad_batches > 1,
            )  # fmt: skip

    def _part(self, share: float) -> Batch:
        some = self.indices[: max(1, round(len(self.indices) * share))]
        return self.fetch(Plan(some, (1.0, 1.0))).to(self.trainer.strategy.root_device)

    def _tokens(self, batch: Batch) -> int:
        packs = self.module.packs(batch.tree.rows.shape[1])
        return len(batch.input_ids) if packs else batch.tree.rows.numel()

    def _run(self, batch: Batch) -> int:
        def forward() -> Tensor:
            with self.trainer.precision_plugin.train_step_context():
                return self.module.training_loss(batch)[0]

        return self.memory.added(forward)

    def _is_quadratic(self) -> bool:
        """Check whether attention holds the score matrix of a whole pack."""
        assert self.module.model is not None
        config: Any = without_adapters(self.module.model.backbone).config
        bounded = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
        return self.module.model.packed and (bounded or self.module.backbone_source.attention in ("sdpa", "eager"))

    @contextmanager
    def _as_before(self) -> Iterator[None]:
        """Restore gradients, buffers and random state afterwards."""
        device = self.trainer.strategy.root_device
        buffers = [
            (module, name, buffer, buffer.clone())
            for module in self.module.modules() for name, buffer in module._buffers.items() if buffer is not None
        ]  # fmt: skip
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
        for parameter in self.module.parameters():
            parameter.grad = None
        for module, name, buffer, value in buffers:
            with torch.no_grad():
                buffer.copy_(value)
            module._buffers[name] = buffer


def _ranks_here(trainer: lightning.Trainer) -> int:
    return int(trainer.num_devices) if trainer.world_size > 1 else 1


class NoteOutOfMemory(lightning.Callback):
    """Record where memory ran out, for :func:`out_of_memory`.

    The trainer no longer knows afterwards.
    """

    where = ""

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Record the step or batch, the device's peak and its memory."""
        if is_out_of_memory(exception):
            in_fit = trainer.state.fn == TrainerFn.FITTING
            step = f"in step {trainer.global_step + 1}" if trainer.training else f"after step {trainer.global_step}"
            stage = "" if trainer.training else f"in {getattr(trainer.state.stage, 'value', 'setup')} "
            where = stage + (step if in_fit else "").strip()
            self.where = f"{where.strip()} on {describe_use(trainer.strategy.root_device)}"
            self.keys = lower(trainer)


def out_of_memory(trainer: lightning.Trainer, error: BaseException) -> str:
    """Describe an out-of-memory error in one line.

    It says where memory ran out, which keys to lower in which order, and which checkpoint is kept.
    """
    note = next((c for c in trainer.callbacks if isinstance(c, NoteOutOfMemory) and c.where), None)  # type: ignore[attr-defined]
    where, keys = (note.where, note.keys) if note else (f"before the first step ({_first_line(error)})", lower(trainer))
    kept = next(iter(files.find(trainer.default_root_dir)), None) if trainer.state.fn == TrainerFn.FITTING else None
    goes_on = (
        f"; {kept} is kept, and --ckpt_path last resumes from it with another backbone.gradient_checkpointing, "
        "precision or number of devices" if kept else ""
    )  # fmt: skip
    return f"out of memory {where}; {keys}{goes_on}"


def lower(trainer: lightning.Trainer) -> str:
    """List the settings that reduce a step's memory, with their current values.

    Those with the least consequences come first.
    """
    module, data = cast(StepModule, trainer.lightning_module), cast(Any, trainer).datamodule
    parts: list[str] = []
    if trainer.state.fn != TrainerFn.FITTING or trainer.validating:
        parts.append(f"data.eval_pack_tokens ({data.eval_pack_tokens} now)")
    else:
        key = "batch_size" if data.pack_tokens is None else "pack_tokens"
        parts.append(f"data.{key} ({getattr(data, key)} now; trainer.accumulate_grad_batches keeps the size of a step)")
        if module.model is None or checkpointing_of(without_adapters(module.model.backbone)) is not True:
            parts.append("backbone.gradient_checkpointing: true")
    if not str(trainer.precision).startswith(("bf16", "16")):
        parts.append(f"trainer.precision: bf16-mixed ({trainer.precision} now)")
    if trainer.state.fn == TrainerFn.FITTING and module.backbone_source.lora is None:
        parts.append("--config lit_configs/overlays/lora.yaml")
    if not isinstance(trainer.strategy, ModelParallelStrategy):
        parts.append("--config lit_configs/overlays/fsdp2.yaml on several devices")
    return "lower " + ", then ".join(parts)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
