"""Find which scored problems the verifiers were trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from stepverify.decoding import read_json
from stepverify.jsonl import MANIFEST
from stepverify.records import InputError


class Trained(msgspec.Struct):
    """Hold a result of :func:`stepverify.training_problems.count_trained`."""

    problems: int
    of: int
    first: str | None


class _Summary(msgspec.Struct):
    trained_on: dict[str, Trained | None] | None = None


class _Input(msgspec.Struct):
    path: str


class _Stage(msgspec.Struct):
    summary: _Summary
    inputs: dict[str, _Input] = {}


def trained_on(folder: Path) -> dict[str, dict[str, Any] | None]:
    """Read how many scored problems each verifier was trained on.

    Follows the manifests from the folder back through all earlier stages.

    Returns:
        verifier → result of :func:`stepverify.training_problems.count_trained`; empty if no stage counted.
    """
    found: dict[str, dict[str, Any] | None] = {}
    passed = set[Path]()
    while folder not in passed:
        passed.add(folder)
        try:
            stage = msgspec.convert(read_json(folder / MANIFEST), _Stage)
        except (InputError, msgspec.ValidationError, ValueError):
            break  # none, or not that of a stage
        found = msgspec.to_builtins(stage.summary.trained_on or {}) | found
        if "input" not in stage.inputs:
            break
        folder = Path(stage.inputs["input"].path)
    return found
