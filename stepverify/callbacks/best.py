"""Choose the best checkpoint of a run by a validation metric."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning

from stepverify.callbacks import files
from stepverify.data.encode import Example
from stepverify.metrics import NEED_BOTH
from stepverify.modules import ProcessRewardModel, StepModule
from stepverify.records import InputError


@dataclass(frozen=True, kw_only=True)
class Best:
    """Describe the chosen checkpoint and the metrics of its validation."""

    monitor: str
    mode: str
    name: str
    step: int
    epoch: int
    metrics: dict[str, float]

    def __str__(self) -> str:
        extreme = "highest" if self.mode == "max" else "lowest"
        return f"step {self.step:,}, with {self.metrics[self.monitor]:.4g} the {extreme} {self.monitor}"


class Choice:
    """Compare validations by one metric.

    Args:
        monitor: the metric; None never chooses.
        mode: ``min`` or ``max``. The first of equal ones is the best.

    Attributes:
        best: the best checkpoint so far.
    """

    def __init__(self, monitor: str | None, mode: str | None) -> None:
        if (monitor is None) != (mode is None):
            raise InputError(f"Checkpoints: monitor and mode (min or max) go together, not {monitor} and {mode}")
        self.monitor, self.mode = monitor, str(mode)
        self.best: Best | None = None
        self._known: set[str] = set()

    def state(self) -> dict[str, Any] | None:
        """Return the best checkpoint as plain values."""
        return asdict(self.best) if self.best else None

    def load(self, state: dict[str, Any] | None) -> None:
        """Restore the best checkpoint if monitor and mode are unchanged."""
        if state and (state["monitor"], state["mode"]) == (self.monitor, self.mode):
            self.best = Best(**state)

    def check(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Refuse a metric that no validation will log.

        Metrics logged by other packages' callbacks are known if the callback lists them in its attribute ``logged``. If
        one does not, the first validation decides.
        """
        if self.monitor is None:
            return
        if getattr(trainer.datamodule, "readers", {"validate": ()})["validate"] is None:  # type: ignore[attr-defined]
            raise InputError(f"Checkpoints.monitor: {self.monitor} is a validation metric; give data.validation")
        callbacks: list[lightning.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        others = [c for c in callbacks if type(c).__module__.split(".")[0] not in ("lightning", "stepverify")]
        self._known = {name for c in others for name in getattr(c, "logged", ())}
        if isinstance(module, StepModule):
            self._known |= module.val_names()
        if all(hasattr(c, "logged") for c in others):
            self._refuse_unknown(self._known)
        if isinstance(module, StepModule) and self.monitor.removeprefix("val/") in NEED_BOTH:
            self._refuse_undefined(trainer.datamodule.examples["validate"], module)  # type: ignore[attr-defined]

    def _refuse_undefined(self, examples: Sequence[Example], module: StepModule) -> None:
        counts, kinds = Counter[bool](), defaultdict[str, set[bool]](set)
        for example in examples:
            verdicts = module.verdicts(example)
            counts.update(verdicts)
            kinds[example.record.problem_id].update(verdicts)
        of_problems = str(self.monitor).endswith("_per_problem")
        if any(len(kind) > 1 for kind in kinds.values()) if of_problems else len(counts) > 1:
            return
        unit = "steps" if isinstance(module, ProcessRewardModel) else "solutions"
        where = ", but of no problem both" if len(counts) > 1 else ""
        raise InputError(
            f"Checkpoints.monitor: {self.monitor} is undefined: data.validation has {counts[True]:,} correct and "
            f"{counts[False]:,} incorrect {unit}{where}; monitor another metric"
        )

    def _refuse_unknown(self, known: set[str]) -> None:
        if self.monitor not in known:
            raise InputError(f"Checkpoints.monitor: there is no {self.monitor}, but {', '.join(sorted(known))}")

    def compare(self, trainer: lightning.Trainer) -> bool:
        """Check whether the latest validation is the best so far.

        If so, :attr:`best` is updated.
        """
        if self.monitor is None:
            return False
        metrics = {
            k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/") or k == self.monitor
        }
        metrics = trainer.strategy.broadcast(metrics)  # so that all ranks decide alike
        if self.monitor not in metrics:
            self._refuse_unknown(self._known | metrics.keys())
            return False  # logged by a callback, but not in every validation
        value, sign = metrics[self.monitor], 1 if self.mode == "max" else -1
        if math.isnan(value) or (self.best and sign * value <= sign * self.best.metrics[self.monitor]):
            return False
        step = trainer.global_step
        self.best = Best(
            monitor=self.monitor, mode=self.mode, name=files.name(step), step=step, epoch=trainer.current_epoch,
            metrics=metrics,
        )  # fmt: skip
        return True


def final_metrics(trainer: lightning.Trainer) -> dict[str, float]:
    """Return the validation metrics of the exported weights: the best, or the last.

    Called on all ranks, as reading metrics may reduce them.
    """
    last = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    choice = _choice(trainer)
    return choice.best.metrics if choice and choice.best else last


def _choice(trainer: lightning.Trainer) -> Choice | None:
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next((c.choice for c in callbacks if isinstance(getattr(c, "choice", None), Choice)), None)


def chosen(trainer: lightning.Trainer) -> tuple[Best, Path] | None:
    """Return the best checkpoint of a run and its path.

    None, to use the final weights, if ``Checkpoints`` has no ``monitor``; also, with a message, if the metric was
    always NaN or the checkpoint is damaged.
    """
    choice = _choice(trainer)
    if choice is None or choice.monitor is None:
        return None
    if (best := choice.best) is None:
        files.say(f"no validation gave a {choice.monitor}: the last weights are exported")
        return None
    path = files.folder(trainer.default_root_dir) / best.name
    if (reason := files.defect(path)) is not None:
        files.say(f"{path} was the best, but is torn ({reason}): the last weights are exported")
        return None
    return best, path
