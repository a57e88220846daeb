"""Store a model's training problems next to its export.

The file has one digest per problem, 17 bytes: 1.7 MB for 100,000 problems. Digests are those of
:func:`stepverify.readers.released.digest`, which ignores spaces and case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

TRAINING_PROBLEMS_FILE = "training_problems.txt"


def write_training_problems(folder: Path, digests: Iterable[str]) -> None:
    """Write the sorted digests of training problems next to an exported model."""
    (folder / TRAINING_PROBLEMS_FILE).write_text("".join(f"{one}\n" for one in sorted(set(digests))), encoding="utf-8")


def read_training_problems(folder: str | Path) -> frozenset[str] | None:
    """Read the digests of a model's training problems; None without file."""
    path = Path(folder) / TRAINING_PROBLEMS_FILE
    return frozenset(path.read_text(encoding="utf-8-sig").split()) if path.is_file() else None


def count_trained(folder: str | Path, digests: Mapping[str, str]) -> dict[str, Any] | None:
    """Count the given problems that a model was trained on.

    Args:
        folder: the export.
        digests: digests of the problems' texts → problem ids.

    Returns:
        The number of ``problems`` trained on, the number ``of`` all given, and the id of the ``first`` one trained on;
            None if the export has no list of training problems.
    """
    if (known := read_training_problems(folder)) is None:
        return None
    seen = [problem_id for one, problem_id in digests.items() if one in known]
    return {"problems": len(seen), "of": len(digests), "first": next(iter(seen), None)}


def describe_trained(found: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Describe the verifiers trained on some problems, one line each.

    Args:
        found: verifier → result of :func:`count_trained`.
    """
    return [
        f"{name} was trained on {counted['problems']:,} of the {counted['of']:,} problems, {counted['first']} for one; "
        "it looks better on them than on new ones"
        for name, counted in found.items()
        if counted and counted["problems"]
    ]
