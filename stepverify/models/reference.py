"""Find the reference model of an implicit reward model, and tell it from any other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from stepverify.hub import is_hub_id, local_model, split_revision
from stepverify.records import InputError

_WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class Reference:
    """Name a reference model, as an export does.

    Attributes:
        path: local folder, or Hub repository with its commit.
        digest: SHA-256 of the model's configuration and weights.
    """

    path: str
    digest: str

    @classmethod
    def of(cls, path: str) -> Self:
        """Describe the model of a local folder or Hub repository.

        Raises:
            InputError: no such model.
        """
        folder = local_model(path)
        commit = Path(folder).name if is_hub_id(path) and Path(folder).parent.name == "snapshots" else None
        return cls(f"{split_revision(path)[0]}@{commit}" if commit else path, digest_model(folder))

    @classmethod
    def read(cls, facts: Any, export: str) -> Self:
        """Read the reference from the metadata of an export.

        Raises:
            InputError: it is not there.
        """
        try:
            return cls(str(facts["reference"]["path"]), str(facts["reference"]["digest"]))
        except (KeyError, TypeError):
            raise InputError(f"{export}: stepverify.json names no reference with its digest") from None

    def find(self, export: str, given: str | None = None) -> str:
        """Return the folder of the model.

        Args:
            export: that names this reference, for messages.
            given: where the model is, if not at ``path``.

        Raises:
            InputError: no model is there, or one with other weights.
        """
        path = given or self.path
        try:
            folder = local_model(path)
            found = digest_model(folder)
        except InputError as error:
            raise InputError(f"{export}: its reference cannot be read: {error}; name its place as reference") from None
        if found != self.digest:
            raise InputError(
                f"{export}: reference: {path}: has other weights than in training (digest {found[:12]}, the export "
                f"says {self.digest[:12]}); name the place of the right ones as reference"
            )
        return folder


def digest_model(folder: str) -> str:
    """Hash a model's configuration and weights.

    Raises:
        InputError: the folder holds no weights.
    """
    where = Path(folder)
    weights = next((found for kind in _WEIGHTS if (found := sorted(where.glob(kind)))), [])
    if not weights:
        raise InputError(f"{folder}: no model with weights (no {' or '.join(_WEIGHTS)})")
    return _digest([where / "config.json", *weights])


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
