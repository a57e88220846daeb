"""Build the optimizer of a training and the schedule of its learning rate."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from stepverify.modules.rounding import check_steps
from stepverify.records import InputError

Decay = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class Optimization:
    """Describe how the trained parameters are optimized.

    Attributes:
        factory: builds an optimizer from parameter groups.
        warmup: share of the training steps over which the learning rate rises from 0.
        decay: schedule of the learning rate after warmup.
    """

    factory: OptimizerCallable
    warmup: float
    decay: Decay

    def check(self, trainer: lightning.Trainer) -> None:
        """Refuse optimizers and schedules that this training does not support.

        Raises:
            InputError: training without end whose learning rate depends on it, or an optimizer that needs a closure.
        """
        endless = trainer.max_epochs == -1 and trainer.max_steps == -1
        if endless and (self.decay != "constant" or self.warmup):
            raise InputError(
                "trainer.max_epochs: without a number of epochs or steps the length of the learning rate's schedule "
                "is unknown; set trainer.max_steps too, or model.init_args.decay: constant and warmup: 0"
            )
        # Built for a dummy parameter, as the model is not loaded yet.
        optimizer = self.factory([{"params": [nn.Parameter(torch.zeros(1))]}])
        closure = inspect.signature(type(optimizer).step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise InputError(
                f"model.init_args.optimizer: {type(optimizer).__name__} computes the loss several times per step, "
                "which is not supported; choose AdamW or another of first order"
            )

    def build(self, module: nn.Module, trainer: lightning.Trainer) -> dict[str, Any]:
        """Build the optimizer with two parameter groups, and its schedule.

        Returns:
            what Lightning's ``configure_optimizers`` returns.
        """
        optimizer = self.factory(parameter_groups(module))
        # Lightning does not clip gradients of an optimizer that may unscale them itself; so let the scaler do that.
        vars(optimizer)["_step_supports_amp_scaling"] = False
        check_steps(optimizer, trainer)
        # Lightning would keep the gradients through the next forward pass, beside its activations.
        optimizer.register_step_post_hook(lambda stepped, *_: stepped.zero_grad())
        steps = trainer.estimated_stepping_batches
        total = int(steps) if math.isfinite(steps) else 1  # unlimited training, which has a constant rate
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.learning_rate_factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def learning_rate_factor(self, step: int, total: int) -> float:
        """Compute the learning rate's factor at ``step`` of ``total``: warmup, decay."""
        rise = max(1, round(self.warmup * total)) if self.warmup else 0
        if step < rise:
            return (step + 1) / rise
        done = min(1.0, (step - rise) / max(1, total - rise))
        if self.decay == "constant":
            return 1.0
        return 1.0 - done if self.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Divide trained parameters into matrices, and others without weight decay.

    Embeddings count as others, also where an output matrix is tied to one. An empty group is left out.
    """
    # By kind of module: names differ (embed_tokens, wte, ...).
    embeddings = {p for m in module.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim >= 2 and parameter not in embeddings
            (decayed if is_matrix else plain).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    return [g for g in groups if g["params"]]
