"""The problems that a model was trained on, as an export says them: digests of their texts, a line each.

17 bytes a problem, so 1.7 MB for 100,000. A digest is that of :func:`stepverify.readers.released.digest`: spaces and
case do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

TRAINING_PROBLEMS_FILE = "training_problems.txt"


def write_training_problems(folder: Path, digests: Iterable[str]) -> None:
    """Write digests beside an exported model, sorted."""
    (folder / TRAINING_PROBLEMS_FILE).write_text("".join(f"{one}\n" for one in sorted(set(digests))), encoding="utf-8")


def read_training_problems(folder: str | Path) -> frozenset[str] | None:
    """Read the digests of a model's training problems; None where the folder does not say."""
    path = Path(folder) / TRAINING_PROBLEMS_FILE
    return frozenset(path.read_text(encoding="utf-8-sig").split()) if path.is_file() else None


def count_trained(folder: str | Path, digests: Mapping[str, str]) -> dict[str, Any] | None:
    """Count the problems that a model was trained on.

    Args:
        folder: the export.
        digests: of the problems' texts → their ids.

    Returns:
        ``problems`` trained on, ``of`` how many, and the ``first`` of them; None where the export does not say.
    """
    if (known := read_training_problems(folder)) is None:
        return None
    seen = [problem_id for one, problem_id in digests.items() if one in known]
    return {"problems": len(seen), "of": len(digests), "first": next(iter(seen), None)}


def describe_trained(found: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Describe the verifiers that were trained on some of the problems, a line each.

    Args:
        found: verifier → what :func:`count_trained` gives.
    """
    return [
        f"{name} was trained on {counted['problems']:,} of the {counted['of']:,} problems, {counted['first']} for one; "
        "it looks better on them than on new ones"
        for name, counted in found.items()
        if counted and counted["problems"]
    ]
