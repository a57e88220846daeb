"""Start, resume or finish a run in its folder; write its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import yaml
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_only

from stepverify import atomic
from stepverify.callbacks import disk, files
from stepverify.callbacks.checkpoints import Checkpoints
from stepverify.callbacks.final import reduce_to
from stepverify.callbacks.together import together
from stepverify.jsonl import MANIFEST, fingerprint
from stepverify.manifest import first_difference, flatten, read_manifest, write_manifest
from stepverify.modules import StepModule
from stepverify.records import InputError
from stepverify.template import EXPORT_FILE

_DECIDES = ("seed_everything", "model", "data")  # settings that identify a run
_KEPT = (*_DECIDES, "trainer")
_LEARNED = ("train", "validation", "lm")
_CHOICES = "start over with --overwrite true, or choose another trainer.default_root_dir"
_LOGS = ("events.out.tfevents.*", "config*.yaml", "hparams.yaml")


class Finished(Exception):
    """Signal that nothing is left to do; the message gives the reason."""


def claim(
    root: Path, export: Path, config: Mapping[str, Any], inputs: Mapping[str, Any], *,
    ckpt_path: str | None, overwrite: bool, fast_dev_run: bool,
) -> list[Path]:  # fmt: skip
    """Decide whether a fit starts in its folder, resumes or is finished.

    Nothing is changed yet, except for checkpoints of a finished run that was killed before it removed them. Every rank
    decides by itself: none writes before all have synchronized.

    Args:
        root: ``trainer.default_root_dir``.
        export: the folder of the export.
        config: this run's configuration.
        inputs: its data, as returned by :func:`inputs_of`.
        ckpt_path: the checkpoint to resume from, ``last`` for the newest.
        overwrite: remove an earlier run.
        fast_dev_run: such a run writes nothing, so any folder will do.

    Returns:
        Files and folders of an earlier run to remove when this one starts; empty if it resumes.

    Raises:
        InputError: the folder holds another run, or there is nothing to resume from.
        Finished: this run has already finished.
    """
    checkpoints, exported = files.find(root), (export / EXPORT_FILE).is_file()
    stored, before, finished, summary = _stored(root)
    wanted = comparable(config)
    difference = first_difference(_deciding(stored), _deciding(wanted), _DECIDES) if stored else None
    continued = _continued(root, ckpt_path)
    if overwrite and continued:
        raise InputError(f"overwrite: true removes the run that {continued} resumes; omit one of the two")
    if not checkpoints and (fast_dev_run or not exported):
        return _earlier(root, export)
    if continued:
        if difference:
            raise InputError(f"{root}: its checkpoint was made with {difference}; {_CHOICES}")
        if changed := [key for key in before if key in inputs and before[key]["sha256"] != inputs[key]["sha256"]]:
            path = inputs[changed[0]]["path"]
            raise InputError(f"{root}: {path} ({changed[0]}) has changed since the run began; {_CHOICES}")
        if fast_dev_run:
            return []
        unchanged = stored is not None and not first_difference(stored, wanted)
        if finished and exported and unchanged and continued != "this ckpt_path":
            rank_zero_only(reduce_to)(root, summary.get("final", "all"), summary.get("checkpoints", ()))
            raise Finished(f"{root}: already finished, {export} is left as it is")
        if not checkpoints:
            raise InputError(f"{export}: an export, but there is no checkpoint to resume from; {_CHOICES}")
        return []
    if overwrite or fast_dev_run:
        return _earlier(root, export)
    if not checkpoints and export.parent != root:
        raise InputError(
            f"{export}: holds the export of an earlier fit; replace it with --overwrite true, or choose another folder"
        )
    of = f"a run that was made with {difference}" if difference else "a finished run" if finished else "an earlier run"
    raise InputError(f"{root}: holds {of}; {'' if difference else 'resume with --ckpt_path last, '}{_CHOICES}")


def earlier_precision(root: Path, ckpt_path: str | None) -> str | None:
    """Return the precision of the resumed run; None without one."""
    if not _continued(root, ckpt_path) or not files.find(root):
        return None
    precision = ((_stored(root)[0] or {}).get("trainer") or {}).get("precision")
    return None if precision is None else str(precision)


def _continued(root: Path, ckpt_path: str | None) -> str | None:
    """Return the setting that resumes the folder's run, if any."""
    if ckpt_path == "last":
        return "ckpt_path: last"
    if ckpt_path and Path(ckpt_path).resolve().is_relative_to(root.resolve()):
        return "this ckpt_path"
    # Lightning loads it automatically, so that a requeued job resumes.
    if not ckpt_path and SLURMEnvironment.detect() and any(root.glob("hpc_ckpt_*.ckpt")):
        return "SLURM's hpc_ckpt"
    return None


def _stored(root: Path) -> tuple[dict[str, Any] | None, dict[str, Any], bool, dict[str, Any]]:
    """Read the stored run: configuration, data, whether it has finished, and summary."""
    if (root / MANIFEST).is_file():
        manifest = read_manifest(root / MANIFEST)
        if manifest["stage"] != "fit":
            raise InputError(f"{root}: is the output of sampling {manifest['stage']}; choose another folder")
        return comparable(manifest["config"]), manifest["inputs"], manifest["finished"], manifest["summary"]
    saved = root / "logs" / "config.yaml"
    config = comparable(yaml.safe_load(saved.read_text(encoding="utf-8"))) if saved.is_file() else None
    return config, {}, False, {}


def inputs_of(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Fingerprint a run's training and validation files, by configuration key.

    Raises:
        InputError: a folder without a finished stage.
    """
    data = config.get("data") or {}
    named = flatten({name: data[name] for name in _LEARNED if data.get(name)}, "data")
    found = {}
    for key, value in named.items():
        if key.rpartition(".")[2] == "path":
            for i, path in enumerate(value if isinstance(value, list) else [value]):
                if Path(path).exists():  # otherwise it is the id of a dataset
                    place = f"{key}[{i}]" if isinstance(value, list) else key
                    found[place] = {"path": str(path), "sha256": fingerprint(path)}
    return found


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the settings that define a run, as plain JSON values."""
    kept: dict[str, Any] = json.loads(json.dumps({k: config[k] for k in _KEPT if k in config}, default=str))
    kept.get("trainer", {}).pop("default_root_dir", None)  # a folder may be moved
    return kept


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out settings that only affect memory and speed.

    After an out-of-memory error, a run resumes with them changed.
    """
    flat = flatten(config)
    for key in ("model.init_args.backbone.gradient_checkpointing", "data.cache"):
        flat.pop(key, None)
    return flat


def _earlier(root: Path, export: Path) -> list[Path]:
    """List the files that fits have written, and no others."""
    logs, checkpoints = root / "logs", files.folder(root)
    found = [root / MANIFEST, *(path for name in _LOGS for path in logs.glob(name)), *root.glob("hpc_ckpt_*.ckpt")]
    own = ("*.ckpt", ".draft", ".*.draft", ".link", ".*.aside")
    found += [path for name in own for path in checkpoints.glob(name)]
    found += [export] if (export / EXPORT_FILE).is_file() else []
    found += [path for what in ("*.draft", "aside") for path in export.parent.glob(f".{export.name}.{what}")]
    return [path for path in found if path.exists() or path.is_symlink()]


class RunFolder(SaveConfigCallback):
    """Record a fit in its folder: configuration, manifest, and completion.

    Written once data and model are loaded. ``manifest.json`` has the configuration, and whether the run has finished.
    Configurations of validate, test and predict are saved next to that of the fit.

    Args:
        parser: as in :class:`~lightning.pytorch.cli.SaveConfigCallback`.
        config: parsed, as in that class.
        text: the configuration as YAML.
        plain: of a fit, the same as plain values.
        inputs: fingerprints of the data.
        earlier: files of an earlier run, removed when the fit starts.
        kwargs: further arguments of that class.
    """

    def __init__(
        self, parser: LightningArgumentParser, config: Any, *,
        text: str = "", plain: Mapping[str, Any] | None = None, inputs: Mapping[str, Any] | None = None,
        earlier: Sequence[Path] = (), **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(parser, config, **kwargs)
        self.text, self.plain = text, dict(plain or {})
        self.identity = {"stage": "fit", "config": comparable(self.plain), "inputs": dict(inputs or {})}
        self.earlier, self._trained = earlier, False
        self._logs: Path | None = None

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Save the configuration of commands other than fit."""
        if stage != "fit":
            self.config_filename = f"config_{getattr(stage, 'value', stage)}.yaml"
            self._save(trainer, pl_module, stage)

    def _save(self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str) -> None:
        self._logs = Path(trainer.log_dir or trainer.default_root_dir)  # every rank asks for it: it is broadcast
        super().setup(trainer, module, stage)

    def save_config(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Write the configuration as it was parsed; on the first rank."""
        assert self._logs is not None
        self._logs.mkdir(parents=True, exist_ok=True)
        (self._logs / self.config_filename).write_text(self.text, encoding="utf-8")

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Check the disk space, remove the earlier run, and save the configuration.

        Nothing is refused after this.
        """
        root = Path(trainer.default_root_dir)
        with together(trainer):
            if trainer.is_global_zero:
                assert isinstance(pl_module, StepModule)
                disk.check(trainer, pl_module, freed=sum(files.size(path) for path in self.earlier))
        if trainer.is_global_zero:
            for path in self.earlier:
                atomic.remove(path)
            if self.earlier:
                parts = sorted({_part(root, path) for path in self.earlier})
                files.say(f"{root}: removed what an earlier fit left there ({', '.join(parts)})")
            root.mkdir(parents=True, exist_ok=True)
            write_manifest(root, self.identity)
        self._save(trainer, pl_module, "fit")

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Record that there was something left to train."""
        self._trained = True

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Mark the run as finished, after its export."""
        if trainer.interrupted or not trainer.is_global_zero:
            return
        root = Path(trainer.default_root_dir)
        if not self._trained:
            files.say(f"{root}: nothing was left to train after step {trainer.global_step}; exported again")
        # Checkpoints are removed after this; if killed in between, the next command removes them.
        callbacks: list[lightning.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        kept = [{"final": c.final, "checkpoints": c.kept} for c in callbacks if isinstance(c, Checkpoints)]
        summary = {"steps": trainer.global_step, "epochs": trainer.current_epoch}
        write_manifest(root, self.identity, summary | (kept[0] if kept else {}))


def _part(root: Path, path: Path) -> str:
    return path.relative_to(root).parts[0] if path.is_relative_to(root) else str(path)
