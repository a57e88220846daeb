"""Trace where solutions came from in the manifests of earlier stages."""

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
    """Check that solutions were sampled in the same way as completions.

    Only then is a solution itself a completion of each of its prefixes. The token limit may differ: it applies to whole
    solutions there, and to completions here.

    Args:
        folder: folder of the solutions; None if they come from a reader.
        here: engine, sampling options and template of the completions, as in a manifest.
        examples: few-shot examples in the completions' prompts.

    Raises:
        InputError: names the key that differs, or says that it is unknown how the solutions were sampled.
    """
    sampled = _how_sampled(folder)
    for key in ("engine", "sampling", "template"):
        before, now = dict(sampled[key]), dict(here[key])
        for name in sorted((before.keys() | now.keys()) - {"max_tokens"}):
            if before.get(name) != now.get(name):
                raise InputError(
                    f"reuse_samples: {folder} was sampled with {key}.{name} = {before.get(name)!r}, rollouts with "
                    f"{now.get(name)!r}; only solutions that were sampled in the same way count as rollouts"
                )
    if sampled["few_shot"] != digest(examples):
        raise InputError(f"reuse_samples: {folder} was sampled with other few-shot examples")


def check_independent(inputs: Mapping[str, Path]) -> None:
    """Check that solutions are independent samples.

    What a search keeps is not. Follows the manifests of the stages in between.

    Args:
        inputs: key → folder.

    Raises:
        InputError: naming key, folder and strategy of the search; best-of-N's solutions are samples.
    """
    for key, folder in inputs.items():
        at, passed = folder, set[Path]()
        while (at / MANIFEST).is_file() and at not in passed:
            passed.add(at)
            manifest = read_manifest(at / MANIFEST)
            strategy = dict(manifest["config"].get("strategy") or {}).get("strategy")
            if manifest["stage"] == "search" and strategy != "BestOfN":
                raise InputError(
                    f"{key}: {folder}: solutions that {strategy} searched are no independent samples, so that pass@1 "
                    "and curves over N would mean nothing; `sampling report` with `searches` gives accuracy and cost"
                )
            at = Path(str(manifest["inputs"].get("input", {}).get("path", "")))


def _how_sampled(folder: Path | None) -> dict[str, Any]:
    """Return the configuration of the generate stage that a folder derives from.

    Follows the manifests of the stages in between.
    """
    at = folder
    while at is not None and (at / MANIFEST).is_file():
        manifest = read_manifest(at / MANIFEST)
        if manifest["stage"] == "generate":
            config: dict[str, Any] = manifest["config"]
            return config
        path = manifest["inputs"].get("input", {}).get("path")
        at = Path(path) if path else None
    raise InputError(
        f"reuse_samples: {folder or 'these solutions'}: no manifest of `sampling generate` says how they were sampled; "
        "set reuse_samples: false"
    )


def scored_by(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the identities of the verifiers whose scores a folder holds, by name.

    Follows the manifests of the stages in between. A name whose scores came without a manifest is not there.
    """
    found: dict[str, dict[str, Any]] = {}
    passed = set[Path]()
    while (folder / MANIFEST).is_file() and folder not in passed:
        passed.add(folder)
        manifest = read_manifest(folder / MANIFEST)
        config = manifest["config"]
        if manifest["stage"] == "score":
            found = dict(config["verifiers"]) | found
        elif manifest["stage"] == "search":
            found = {config["verifier_name"]: config["verifier"]} | found
        folder = Path(str(manifest["inputs"].get("input", {}).get("path", "")))
    return found
