"""Name the stage that made a folder, where another stage's output is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepverify.errors import InputError

_WRITES = {
    "generate": "solutions", "label": "solutions", "score": "solutions", "search": "solutions", "rank": "rankings",
    "select": "rating sheets",
}  # fmt: skip
_NEEDED = {
    "Solution": ("solutions", "`sampling generate`, `label`, `score` and `search` write them"),
    "Ranking": ("rankings", "`sampling rank` writes them"),
    "RatingSheet": ("rating sheets", "`sampling select` writes them"),
}  # fmt: skip


def check_made_by(path: str | Path, kind: type, manifest: Mapping[str, Any]) -> None:
    """Check that the stage that made a folder writes records of a kind.

    Args:
        path: folder.
        kind: type of the records that are needed; others than those of stages are not checked.
        manifest: of the folder; empty without one.

    Raises:
        InputError: naming the stage that made the folder, its input where that holds what is needed, and the stage
            that is needed.
    """
    stage = manifest.get("stage")
    found, (needed, writers) = _WRITES.get(str(stage)), _NEEDED.get(kind.__name__, (None, ""))
    if found is None or needed is None or found == needed:
        return
    known = manifest.get("inputs")
    given = known.get("input", {}).get("path") if isinstance(known, dict) else None
    source = f"; did you mean its input {given}?" if found != "solutions" and needed == "solutions" and given else ""
    raise InputError(f"{path}: holds {found} of `sampling {stage}`; expected {needed}: {writers}{source}")
