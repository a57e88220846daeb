"""A cache of the Hub on this disk, laid out as huggingface_hub lays it out."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path


class FakeHub:
    """Holds repositories in a cache folder, with one commit for each revision.

    Files are links from a snapshot to blobs, as in a cache that ``snapshot_download`` filled.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, source: str | Path, revision: str = "main") -> Path:
        """Add a folder as a repository's revision; return its snapshot."""
        commit = hashlib.sha1(f"{name}@{revision}".encode()).hexdigest()
        place = self.folder / f"models--{name.replace('/', '--')}"
        snapshot = place / "snapshots" / commit
        for file in (file for file in Path(source).rglob("*") if file.is_file()):
            blob = place / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, blob)
            link = snapshot / file.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / revision).write_text(commit)
        return snapshot

    def lacks(self, name: str, file: str, revision: str = "main") -> None:
        """Note, as a download does, that a repository has no such file."""
        place = self.folder / f"models--{name.replace('/', '--')}"
        commit = (place / "refs" / revision).read_text()
        (place / ".no_exist" / commit).mkdir(parents=True, exist_ok=True)
        (place / ".no_exist" / commit / file).touch()
