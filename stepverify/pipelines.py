"""Read ``pipeline.yaml``: the stages of a recipe in order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepverify.records import InputError
from stepverify.variables import FILE, Variables, load_yaml, variables_file

PIPELINE = "pipeline.yaml"
OVERLAYS = "overlays"  # in a stage's configs: where those of the command line stand; left out, they are the last
FIT = "stepverify fit"
_KEYS = {"run", "config", "set", "when"}


@dataclass(frozen=True)
class Stage:
    """One stage of a pipeline.

    Attributes:
        name: in the pipeline's file.
        run: program and command: ``stepverify fit``, ``sampling generate``.
        configs: configuration files in order.
        variables: values of the stage alone, as text for ``--set``.
        when: variables of which one must be true; empty runs the stage always.
    """

    name: str
    run: str
    configs: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    when: tuple[str, ...] = ()

    def command(
        self, overlays: Sequence[str], given: Mapping[str, str], shard: str | None = None, limit: int | None = None
    ) -> list[str]:
        """Return the command line as it is typed by hand."""
        words = [*self.run.split()]
        for config in self.configs if OVERLAYS in self.configs else (*self.configs, OVERLAYS):
            laid_over = overlays if self.run == FIT else ()
            for path in laid_over if config == OVERLAYS else [config]:
                words += ["--config", path]
        for name, value in (dict(given) | dict(self.variables)).items():
            words += ["--set", f"{name}={value}"]
        words += [] if shard is None else ["--shard", shard]
        words += [] if limit is None or self.run == FIT else ["--limit", str(limit)]
        return words + (["--ckpt_path", "last"] if self.run == FIT else [])


def read_pipeline(file: Path) -> tuple[list[Stage], dict[str, str]]:
    """Read ``pipeline.yaml``: its stages in order, and the variables that it sets for all of them.

    A stage is ``NAME: PROGRAM COMMAND``, with NAME.yaml as its configuration, or a mapping with the keys ``run``,
    ``config`` (one file or several), ``set`` (variables of this stage) and ``when`` (variables of which one must be
    true). Files are named from the folder of the pipeline.

    Raises:
        InputError: with file and key.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file; a pipeline is a folder with a {PIPELINE}, or such a file")
    tree = load_yaml(file)
    if not isinstance(tree, dict) or tree.keys() - {"set", "stages"} or not isinstance(tree.get("stages"), dict):
        raise InputError(f"{file}: expected the key stages, names and commands, and at most the key set")
    common = _as_set(file, "set", tree.get("set"))
    return [_stage(file, str(name), value) for name, value in tree["stages"].items()], common


def _stage(file: Path, name: str, value: Any) -> Stage:
    where = f"{file}: stages.{name}"
    spec = {"run": value} if isinstance(value, str) else value
    if not isinstance(spec, dict) or spec.keys() - _KEYS:
        raise InputError(f"{where}: expected a command, or the keys {', '.join(sorted(_KEYS))}; got {value!r}")
    run = str(spec.get("run", ""))
    if run != FIT and (len(run.split()) != 2 or not run.startswith("sampling ")):
        raise InputError(f"{where}: expected `sampling STAGE` or `stepverify fit`, got {run!r}")
    found = []
    for config in _texts(f"{where}.config", spec.get("config", f"{name}.yaml")):
        path = config if config == OVERLAYS else _from_here(file.parent / config)
        if path != OVERLAYS and not Path(path).is_file():
            raise InputError(f"{where}: {path}: no such file")
        found.append(path)
    when = _texts(f"{where}.when", spec.get("when", []))
    beside = variables_file(file)
    if missing := [word for word in when if word not in Variables().of(beside)]:
        raise InputError(f"{where}.when: {missing[0]}: no such variable in {beside or FILE}")
    return Stage(name, run, tuple(found), _as_set(file, f"stages.{name}.set", spec.get("set")), tuple(when))


def _texts(where: str, value: Any) -> list[str]:
    """Return one text or several as a list."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise InputError(f"{where}: expected a text or a list of them, got {value!r:.80}")
    return found


def _from_here(path: Path) -> str:
    """Return a path without ``x/..`` in it."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return Path(*parts).as_posix()


def _as_set(file: Path, key: str, values: Any) -> dict[str, str]:
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{file}: {key}: expected names and values, got {values!r}")
    return {str(n): v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for n, v in values.items()}
