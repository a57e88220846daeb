"""Say what a fit trains when it starts, and what it made when it ends."""

from __future__ import annotations

import inspect
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import lightning
from lightning.pytorch.utilities import rank_zero_info

from stepverify.callbacks.best import final_metrics
from stepverify.callbacks.export import HuggingFaceExport
from stepverify.metrics import shown
from stepverify.modules import StepModule
from stepverify.monitoring.media import say_files
from stepverify.starting.next_commands import IN_PIPELINE, next_commands, next_stage

_SHORT = {"process": "prm", "outcome": "orm", "implicit": "implicit", "generator": "generator"}


class Outline(lightning.Callback):
    """Print the model's size at the start; metrics, export and next command at the end.

    The metrics are those of the exported weights. The next command is the pipeline's next stage for a recipe, and
    otherwise what scores held-out solutions (or samples solutions, with a generator). Within ``sampling pipeline``,
    which goes on by itself, it is left out.

    Args:
        config: configuration of the fit, as plain values.
        files: its configuration files.
        variables: of its command line.
    """

    def __init__(self, config: Mapping[str, Any], files: Sequence[str], variables: Mapping[str, str]) -> None:
        self.config, self.files, self.variables = config, files, variables
        self._began = time.monotonic()
        self._made: list[str] = []

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Print the number of parameters."""
        self._began = time.monotonic()
        if trainer.is_global_zero:
            say_files(trainer)
        sizes = [(p.numel(), p.requires_grad) for p in pl_module.parameters()]
        total, trained = sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)
        share = "all trained" if trained == total else f"{trained:,} of them trained ({trained / total:.2%})"
        rank_zero_info(f"model: {total:,} parameters, {share}")

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Collect what the fit has made; printed when all callbacks have ended."""
        metrics = final_metrics(trainer)
        if trainer.interrupted or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, StepModule)
        passed = timedelta(seconds=round(time.monotonic() - self._began))
        self._made = [f"fit: finished after {trainer.global_step:,} steps, {trainer.current_epoch:,} epochs, {passed}"]
        if metrics:
            width = max(map(len, metrics))
            named = (f"    {name:<{width}}  {shown(name, value)}" for name, value in sorted(metrics.items()))
            self._made += ["  metrics of the exported weights:", *named]
        callbacks: list[lightning.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        export = next((str(c.target(trainer)) for c in callbacks if isinstance(c, HuggingFaceExport)), None)
        if export is None:
            return
        self._made.append(f"  export: {export}")
        if not os.environ.get(IN_PIPELINE):
            commands = self._next(trainer, pl_module, export)
            self._made += ["  next:", *(f"    {shlex.join(command)}" for command in commands)]

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Print nothing: another callback could not end."""
        self._made = []

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Print it."""
        if self._made:
            print("\n".join(self._made), flush=True)
        self._made = []

    def _next(self, trainer: lightning.Trainer, module: StepModule, export: str) -> list[list[str]]:
        if command := next_stage(self.files, self.variables):
            return [command]
        assert module.model is not None
        data = self.config["data"]
        used, stage = ("validation", "validate") if data.get("validation") else ("train", "fit")
        readers = trainer.datamodule.readers  # type: ignore[attr-defined]
        reader = _short(data[used], readers[stage])
        return next_commands(
            _SHORT.get(module.model.objective, module.model.objective), export, str(trainer.default_root_dir), reader
        )


def _short(described: Mapping[str, Any], reader: Any) -> dict[str, Any]:
    """Return a reader's entry of a configuration without its defaults."""
    defaults = {
        name: parameter.default
        for base in reversed(type(reader).__mro__)  # which take the options of those above them as **options
        for name, parameter in inspect.signature(base).parameters.items()
        if base is not object
    }
    given = described.get("init_args") or {}
    kept = {key: value for key, value in given.items() if key not in defaults or value != defaults[key]}
    path: str = described["class_path"]
    return {"class_path": path.rpartition(".")[2] if path.startswith("stepverify.") else path, "init_args": kept}
