"""Read the shards that a stage writes, whether it has finished or not."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from pathlib import Path

from stepverify.decoding import decode_record, describe_fault
from stepverify.keys import KeySet
from stepverify.records import InputError, Record, record_key


def list_shards(folder: Path) -> list[Path]:
    """List the shards of a stage's folder, in order."""
    return sorted(folder.glob("part-*.jsonl"))


def read_keys(folder: Path, kind: type[Record], *, mend: bool) -> KeySet:
    """Read the keys of all records of a folder.

    ``mend`` cuts off torn final lines, and removes shards without a record; a finished folder is only read.

    Raises:
        InputError: a shard was edited after it was written, so that a line is no record, or a key occurs twice.
    """
    keys = KeySet()
    for shard in list_shards(folder):
        whole = 0
        for record, length in whole_lines(shard, kind, torn=mend):
            if not keys.add(key := record_key(record)):
                raise InputError(
                    f"{shard}: id {key!r} occurs twice in {folder}; it was edited after the stage wrote it"
                )
            whole += length
        if mend and whole:
            os.truncate(shard, whole)
        elif mend:  # killed before its first record
            shard.unlink()
    return keys


def whole_lines(shard: Path, kind: type[Record], *, torn: bool) -> Iterator[tuple[Record, int]]:
    """Read records and the byte lengths of their lines.

    ``torn``: the final line may be incomplete, and is then left out.
    """
    with shard.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if torn and not line.endswith(b"\n"):
                return
            try:
                record = decode_record(kind, line if torn else line.removeprefix(codecs.BOM_UTF8))
            except (ValueError, RecursionError) as error:
                said = describe_fault(line.decode(errors="backslashreplace"), error)
                raise InputError(f"{shard}:{number}: {said}; the shard was edited after the stage wrote it") from None
            yield record, len(line)


def holds_record(shard: Path) -> bool:
    """Tell whether a shard has a whole line."""
    with shard.open("rb") as file:
        return file.readline().endswith(b"\n")
