"""A disk that fails under a store: what is written stays, nothing torn is written on, and the message names the file."""

import errno
import os
import shutil
from typing import ClassVar

import pytest

from sampling.runtime import store as store_module
from sampling.runtime.store import Store
from stepverify.jsonl import dump_line, read_records
from stepverify.manifest import read_manifest
from stepverify.records import InputError, Problem

RECORDS = [Problem(id=f"p/{i}", problem="?") for i in range(4)]


def opened(folder, **known):
    return Store(folder, Problem, stage="generate", config={}, inputs={}, **known)


class Filling(store_module.FileIO):
    """A file on a disk with room for 50 bytes more, once."""

    room: ClassVar = [50]

    def write(self, data):
        if not self.room:
            return super().write(data)
        if not self.room[0]:
            self.room.clear()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = min(len(data), self.room[0])
        self.room[0] -= taken
        return super().write(data[:taken])


def test_a_disk_that_fills_up_in_the_middle_of_a_line(tmp_path, monkeypatch):
    """A line has 27 bytes: one and 23 bytes of the next fit. There is room again at once, but nothing is added to the torn line."""
    assert len(dump_line(RECORDS[0])) == 27
    monkeypatch.setattr(store_module, "FileIO", Filling)
    monkeypatch.setattr(Filling, "room", [50])
    shard = tmp_path / "out" / "part-00000.jsonl"
    with pytest.raises(OSError, match="No space left") as caught, opened(tmp_path / "out") as store:  # noqa: PT012
        store.write(RECORDS[:1])
        with pytest.raises(OSError, match="No space left"):
            store.write(RECORDS[1:3])
        assert store.done == {"p/0"}
        store.write(RECORDS[3:])
    assert caught.value.filename == str(shard)
    assert shard.stat().st_size == 50
    with opened(tmp_path / "out") as store:
        assert store.done == {"p/0"}
        store.write(RECORDS[1:])
        store.finish({})
    assert list(read_records(tmp_path / "out", Problem)) == RECORDS


@pytest.mark.parametrize("at", ["write", "finish"])
def test_a_folder_that_is_removed_while_it_is_written(tmp_path, at):
    """The open file still takes records, and would lose them; the manifest would make a finished folder without any."""
    out = tmp_path / "out"
    with (  # noqa: PT012
        pytest.raises(InputError, match=rf"^{out}: was removed or replaced, or its .lock was, while"),
        opened(out) as store,
    ):
        store.write(RECORDS[:1])
        shutil.rmtree(out)
        if at == "write":
            store.write(RECORDS[1:2])
        store.finish({})
    assert not out.exists()


def test_a_stage_without_a_record_fails(tmp_path):
    out = tmp_path / "out"
    with (
        pytest.raises(InputError, match=rf"^{out}: no record to write: the input holds nothing for this stage"),
        opened(out) as store,
    ):
        store.finish({})
    assert not out.exists()
    with opened(out, may_be_empty=True) as store:
        store.finish({"rollouts": 0})
    assert opened(out).finished


def test_a_finished_stage_stays_as_it_is(tmp_path):
    out = tmp_path / "out"
    with opened(out) as store:
        store.write(RECORDS[:1])
        store.finish({"n": 1})
    with opened(out) as store:
        store.finish({"n": 2})
    assert read_manifest(out / "manifest.json")["summary"] == {"n": 1}


def test_a_record_twice_in_a_batch(tmp_path):
    with opened(tmp_path / "out") as store:
        with pytest.raises(ValueError, match="record p/0 is already in "):
            store.write(RECORDS[:1] * 2)
        assert store.done == set()
        store.write(RECORDS[:1])


def test_a_key_twice_in_the_shards(tmp_path):
    """Edited by hand, in an unfinished folder and in a finished one, whose number of different keys is still right."""
    out = tmp_path / "out"
    with opened(out) as store:
        store.write(RECORDS[:2])
    (out / "part-00001.jsonl").write_text(dump_line(RECORDS[1]))
    said = f"^{out}/part-00001.jsonl: id 'p/1' occurs twice in {out}; it was edited"
    with pytest.raises(InputError, match=said), opened(out):
        pass
    (out / "part-00001.jsonl").unlink()
    with opened(out) as store:
        store.finish({})
    (out / "part-00001.jsonl").write_text(dump_line(RECORDS[1]))
    with pytest.raises(InputError, match=said):
        opened(out)
