"""Where solutions came from, as the manifests of the stages before say it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stepverify.jsonl import MANIFEST, dump_line
from stepverify.manifest import read_manifest
from stepverify.records import InputError, Problem, Solution


def digest(items: Iterable[Problem | Solution]) -> str:
    """Hash the contents of problems or solutions (SHA-256)."""
    sha = hashlib.sha256()
    for item in items:
        sha.update(dump_line(item).encode())
    return sha.hexdigest()


def check_origin(folder: Path | None, here: Mapping[str, Any], examples: list[Problem]) -> None:
    """Check that the solutions of ``folder`` were sampled as completions are: they can count as such.

    The token limit may differ: it holds for whole solutions there, for completions here.

    Args:
        folder: of the solutions; None where they come from a reader.
        here: engine, sampling and template of the completions, as a manifest says them.
        examples: in front of their prompts.

    Raises:
        InputError: naming the key that differs, or that it is not known how they were sampled.
    """
    sampled = _how_sampled(folder)
    for key in ("engine", "sampling", "template"):
        before, now = dict(sampled[key]), dict(here[key])
        for name in sorted((before.keys() | now.keys()) - {"max_tokens"}):
            if before.get(name) != now.get(name):
                raise InputError(
                    f"reuse_samples: {folder} was sampled with {key}.{name} = {before.get(name)!r}, rollouts with "
                    f"{now.get(name)!r}; only solutions sampled alike are completions of their own prefixes"
                )
    if sampled["few_shot"] != digest(examples):
        raise InputError(f"reuse_samples: {folder} was sampled after other few-shot examples")


def _how_sampled(folder: Path | None) -> dict[str, Any]:
    """The configuration of the generate stage after a folder, through the stages in between."""
    at = folder
    while at is not None and (at / MANIFEST).is_file():
        manifest = read_manifest(at / MANIFEST)
        if manifest["stage"] == "generate":
            config: dict[str, Any] = manifest["config"]
            return config
        path = manifest["inputs"].get("input", {}).get("path")
        at = Path(path) if path else None
    raise InputError(
        f"reuse_samples: no manifest of sampling generate is after {folder or 'these solutions'}, so it is not known "
        "how they were sampled; switch it off"
    )
