"""What other runs of a stage have sampled, for one that would draw the same (``reuse_from``)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sampling.runtime.store import kept_records
from stepverify.jsonl import MANIFEST
from stepverify.manifest import read_manifest
from stepverify.records import InputError, Record

_LAW = ("engine", "sampling", "template", "few_shot", "seed")  # what decides the text of a draw


def check_sampled(folders: Sequence[Path], stage: str, here: Mapping[str, Any]) -> None:
    """Check that this run would draw what is in the folders.

    Args:
        folders: of other runs of this stage, finished or not.
        stage: its name.
        here: the configuration of this run.

    Raises:
        InputError: naming the key that differs, or that a folder is none of this stage.
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
    """The records of all folders; what a kill tore is left out."""
    for folder in folders:
        yield from kept_records(folder, kind)
