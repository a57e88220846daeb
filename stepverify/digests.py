"""Digest the files of models, so that another training counts as another model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stepverify.jsonl import fingerprint
from stepverify.objectives import OBJECTIVES
from stepverify.records import InputError
from stepverify.template import EXPORT_FILE, load_export

DECIDING = ("config.json", EXPORT_FILE, "tokenizer.json")
"""Files of an export that decide the values as much as the weights do: configuration, template, ids and tokenizer."""


def digest_model(folder: Path, names: Sequence[str]) -> str:
    """Return digests of a model's weights, and of the files ``names`` that are there."""
    others = [file for name in names if (file := folder / name).is_file()]
    return " ".join(fingerprint(file)[:16] for file in (*sorted(folder.glob("*.safetensors")), *others))


def fingerprint_export(path: str) -> str:
    """Return digests of an export's files, without a calibration.

    Raises:
        InputError: not an exported verifier.
    """
    folder = Path(path)
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{path}: not an exported verifier (no .safetensors file)")
    found = load_export(folder)
    if found is None or found[1].get("objective") not in OBJECTIVES:
        raise InputError(
            f"{path}: not an exported verifier (its {EXPORT_FILE} must say objective: {', '.join(OBJECTIVES)})"
        )
    return digest_model(folder, DECIDING)
