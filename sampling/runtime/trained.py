"""Find which scored problems the verifiers were trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stepverify.jsonl import MANIFEST


def trained_on(folder: Path) -> dict[str, dict[str, Any] | None]:
    """Read how many scored problems each verifier was trained on.

    Follows the manifests from the folder back through all earlier stages.

    Returns:
        verifier → result of :func:`stepverify.training_problems.count_trained`; empty if no stage counted.
    """
    found: dict[str, dict[str, Any] | None] = {}
    passed = set[Path]()
    while (manifest := folder / MANIFEST).is_file() and folder not in passed:
        passed.add(folder)
        try:
            described = json.loads(manifest.read_text(encoding="utf-8-sig"))
            found = (described["summary"].get("trained_on") or {}) | found
            folder = Path(described["inputs"]["input"]["path"])
        except (ValueError, KeyError, TypeError, AttributeError):
            break  # not the manifest of a stage, or that of the first one
    return found
