"""Recognise rows of other projects' formats, to name their reader. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Keys that only rows of this format have together; the first that fits is named.
_KEYS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"prompt", "completions", "labels"}), "Stepwise"),
    (frozenset({"question", "process", "label"}), "OpenR"),
    (frozenset({"labeler", "question", "label"}), "PRM800K"),
    (frozenset({"problem", "steps", "label"}), "ProcessBench"),
    (frozenset({"input", "label"}), "MathShepherd"),
    (frozenset({"input", "value"}), "OpenRLHF"),
    (frozenset({"conversations"}), "RLHFlow"),
)


def name_reader(row: Any) -> str | None:
    """Return the reader of a row's format; None for an unknown one."""
    if not isinstance(row, Mapping):
        return None
    return next((reader for keys, reader in _KEYS if keys <= row.keys()), None)


def describe_row(row: Any) -> str:
    """Describe what to do with a row of another format; empty for an unknown one."""
    if (reader := name_reader(row)) is None:
        return ""
    whose = "TRL's rows" if reader == "Stepwise" else "rows"
    return (
        f"; these are {whose} of the reader {reader}: give class_path: {reader} where a reader is asked for, or "
        f"convert the file: sampling convert --input.class_path {reader} --input.init_args.path FILE --output OTHER"
    )
