"""Store the output of a stage: append-only shards and a manifest.

Shards survive a kill, and the manifest says what made them. A folder with records belongs to one configuration: a stage
that is started again with the same configuration continues where it stopped; with another one it refuses and names the
key that differs. A folder without records, also in the subfolders of labellers, belongs to no configuration, and the
next stage takes it over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, Generic

import msgspec

from sampling.runtime.shards import holds_record, list_shards, read_keys, whole_lines
from stepverify import atomic, trial
from stepverify.jsonl import MANIFEST, check_count, digest_files, dump_line, fingerprint
from stepverify.keys import KeySet
from stepverify.lock import LOCK, FolderLock
from stepverify.manifest import first_difference, read_manifest, write_manifest
from stepverify.records import InputError, Record, record_key

SHARD_BYTES = 256 << 20


class Store(Generic[Record]):
    """Write the records of one stage, each exactly once, despite kills.

    A batch given to :meth:`write` is on disk when the call returns. A kill can only tear the final line, which is cut
    off at the next start. A finished folder is only read.

    An object alone reads: whether the stage has finished, and its summary. As a context manager it locks the folder for
    this process, and ``done`` holds the keys of the stored records. A stage that raises before its first record leaves
    nothing, neither the folder nor the parents that were created for it.

    Args:
        folder: the output folder; created if it does not exist.
        kind: the record type of the lines.
        stage: ``generate``, ``label``, ...; part of the configuration.
        config: everything that decides the content of the records, as plain JSON values. Leave out what only changes
            the speed (batch sizes, numbers of processes).
        inputs: name → file or folder that the stage reads; a hash of its content is stored.
        nested: key of ``config`` that is checked by the stores inside this folder; it may change while the stage has no
            record of its own.
        editable: people may change the records once the stage has finished.
        may_be_empty: the stage may finish without a record.

    Raises:
        InputError: the folder was made by another stage, configuration or input, or holds foreign files.
    """

    def __init__(
        self, folder: str | Path, kind: type[Record], *,
        stage: str, config: Mapping[str, Any], inputs: Mapping[str, str | Path],
        nested: str | None = None, editable: bool = False, may_be_empty: bool = False,
    ) -> None:  # fmt: skip
        self.folder = Path(folder)
        self.kind: type[Record] = kind
        self._identity = json.loads(
            json.dumps({
                "stage": stage,
                "config": {**config, **trial.described()},
                "inputs": {name: {"path": str(path), "sha256": fingerprint(path)} for name, path in inputs.items()},
            }, default=str)
        )  # fmt: skip
        self._nested, self._editable, self._may_be_empty = nested, editable, may_be_empty
        self._file: FileIO | None = None
        self._failed: OSError | None = None
        self._lock: FolderLock | None = None
        self._made: list[Path] = []
        self.done = KeySet()
        self.summary: dict[str, Any] = {}
        self.finished = False
        self._look()

    def _look(self) -> bool:
        """Read what is there, and change nothing; tell whether records of this stage, or of a labeller, are kept."""
        atomic.refuse_others(self.folder, folder=True)
        manifest = self.folder / MANIFEST
        stored = read_manifest(manifest) if manifest.is_file() else None
        if stored is None and self.folder.exists() and any(not _is_sign(p) for p in self.folder.iterdir()):
            raise InputError(
                f"{self.folder}: not empty, and not the output of a stage (no {MANIFEST}); choose another output"
            )
        if stored is None or not (stored["finished"] or _in_use(self.folder)):
            return False
        own = stored["finished"] or any(map(holds_record, list_shards(self.folder)))
        _refuse_difference(self.folder, stored, self._identity, but=None if own else self._nested)
        self.finished, self.summary = stored["finished"], stored["summary"]
        if self.finished:
            self.done = read_keys(self.folder, self.kind, mend=False)
            check_count(self.folder, len(self.done))
        return True

    def _claim(self) -> None:
        """Make the folder this stage's: it goes on there, or begins where no record is kept."""
        if not self._look():
            _clear(self.folder)
        if self.finished:
            return
        write_manifest(self.folder, self._identity)
        self.done = read_keys(self.folder, self.kind, mend=True)

    def records(self) -> Iterator[Record]:
        """Read the records stored so far, whether finished or not."""
        yield from kept_records(self.folder, self.kind)

    def write(self, records: Iterable[Record]) -> None:
        """Append a batch of records and sync it to disk.

        Raises:
            ValueError: a record with this key is already stored.
            OSError: the disk failed, with the file's name; this object then writes nothing more. A torn line is cut off
                at the next start.
        """
        batch = list(records)
        if not batch:
            return
        keys = set[str]()
        for record in batch:
            key = record_key(record)
            if key in self.done or key in keys:
                raise ValueError(f"record {key} is already in {self.folder}")
            keys.add(key)
        data = "".join(map(dump_line, batch)).encode()
        if self._failed is not None:
            raise self._failed
        self._check_held()
        try:
            self._append(data)
        except OSError as error:
            place = error.filename or (self._file.name if self._file else self.folder)
            self._failed = OSError(error.errno, error.strerror, str(place))
            raise self._failed from None
        self.done.update(keys)

    def _append(self, data: bytes) -> None:
        if self._file is None or self._file.tell() > SHARD_BYTES:
            self._next_shard()
        assert self._file is not None
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
        os.fsync(self._file.fileno())

    def _check_held(self) -> None:
        """Refuse to write where the folder is no longer the one that this process locked.

        A removed file still takes what is written to it, and loses it.
        """
        if self._lock is None or not self._lock.held():
            raise InputError(
                f"{self.folder}: was removed or replaced, or its {LOCK} was, while this stage wrote it; run it again"
            )

    def _next_shard(self) -> None:
        shards = list_shards(self.folder)
        if self._file is not None:
            self._file.close()
        reuse = shards and shards[-1].stat().st_size <= SHARD_BYTES
        name = shards[-1] if reuse else self.folder / f"part-{len(shards):05d}.jsonl"
        self._file = FileIO(name, "ab")  # unbuffered: after a fault nothing is left that would be written later
        self._file.seek(0, os.SEEK_END)
        atomic.sync(self.folder)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Mark the stage as finished; later stages read only finished folders. A finished one stays as it is.

        Raises:
            InputError: there is no record, and the stage may not be empty; or the folder was removed.
        """
        if self.finished:
            return
        self._check_held()
        if not self.done and not self._may_be_empty:
            known = ", ".join(str(known["path"]) for known in self._identity["inputs"].values()) or "the input"
            raise InputError(f"{self.folder}: no record to write: {known} holds nothing for this stage; check it")
        if self._file is not None:
            self._file.close()
            self._file = None
        self.summary, self.finished = dict(summary), True
        digest = None if self._editable else digest_files(list_shards(self.folder))
        write_manifest(self.folder, self._identity, self.summary, {"count": len(self.done), "sha256": digest})

    def __enter__(self) -> Store[Record]:
        if self.finished:
            return self
        self._made = atomic.make_folder(self.folder)
        try:
            self._lock = FolderLock(self.folder)
            self._claim()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        if self._lock is not None and kind is not None and not self.finished and not _in_use(self.folder):
            _clear(self.folder)
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        atomic.remove_empty(self._made)  # no-op where something is kept
        self._made = []


def read_summary(folder: Path, kind: Any = dict[str, Any]) -> Any:
    """Read the summary of a finished stage; empty without one.

    Args:
        folder: output of the stage.
        kind: type of the summary, of which the keys are checked that it has.

    Raises:
        InputError: the summary is of another type.
    """
    manifest = folder / MANIFEST
    summary = (read_manifest(manifest)["summary"] or {}) if manifest.is_file() else {}
    try:
        return msgspec.convert(summary, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{manifest}: key 'summary': {error}") from None


def kept_records(folder: Path, kind: type[Record]) -> Iterator[Record]:
    """Read a folder's records, finished or not, without a torn line."""
    torn = not read_manifest(folder / MANIFEST)["finished"]
    for shard in list_shards(folder):
        for record, _ in whole_lines(shard, kind, torn=torn):
            yield record


def _in_use(folder: Path) -> bool:
    """Tell whether a folder holds records or foreign files, subfolders included.

    Manifests, and shards without a complete line, do not count.
    """
    for path in folder.rglob("*"):
        if path.is_symlink():
            return True
        if path.is_dir() or path.name == MANIFEST or _is_sign(path):
            continue
        if not path.match("part-*.jsonl") or holds_record(path):
            return True
    return False


def _is_sign(path: Path) -> bool:
    """Tell whether a file is all that is there of a stage that was killed while it began: a lock, a draft."""
    return path.name == LOCK or path.name.startswith((f"{LOCK}.", f".{MANIFEST}."))


def _clear(folder: Path) -> None:
    """Remove all manifests and shards of an unused folder."""
    for path in sorted(folder.rglob("*"), reverse=True):  # files before their folders
        if path.is_dir():
            path.rmdir()
        elif path != folder / LOCK:  # held by this process
            path.unlink()


def _refuse_difference(
    folder: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any], *, but: str | None = None
) -> None:
    before, now = (
        {
            "stage": of["stage"],
            "config": {key: value for key, value in of["config"].items() if key != but},
            # An input may be moved or renamed; only its content counts.
            "inputs": {name: {"sha256": known["sha256"]} for name, known in of["inputs"].items()},
        } for of in (stored, wanted)
    )  # fmt: skip
    if difference := first_difference(before, now):
        raise InputError(f"{folder}: was made with {difference}; choose another output folder, or remove this one")
