"""Read samples of other runs of a stage for ``reuse_from``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sampling.runtime.store import kept_records
from stepverify.jsonl import MANIFEST
from stepverify.manifest import read_manifest
from stepverify.records import InputError, Record

_LAW = ("engine", "sampling", "template", "few_shot", "seed")  # what decides the text of a sample


def check_sampled(folders: Sequence[Path], stage: str, here: Mapping[str, Any]) -> None:
    """Check that this run would sample what the folders contain.

    Args:
        folders: outputs of other runs of this stage, finished or not.
        stage: name of the stage.
        here: the configuration of this run.

    Raises:
        InputError: names the key that differs, or the folder that is not an output of this stage.
    """
    now = json.loads(json.dumps(here))
    for folder in folders:
        manifest = read_manifest(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
        if manifest.get("stage") != stage:
            raise InputError(f"reuse_from: {folder}: not the output of stage {stage}")
        for key in _LAW:
            if (before := manifest["config"][key]) != now[key]:
                raise InputError(f"reuse_from: {folder} was sampled with {key} = {before!r}, this run has {now[key]!r}")


def read_sampled(folders: Sequence[Path], kind: type[Record]) -> Iterator[Record]:
    """Read the records of all folders, without a torn final line."""
    for folder in folders:
        yield from kept_records(folder, kind)
