import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.runtime import store as store_module
from sampling.runtime.store import Store, record_key
from stepverify.jsonl import MANIFEST, dump_line, fingerprint, read_records, write_records
from stepverify.records import InputError, Problem, Ranking
from stepverify.versions import installed
from tests.helpers.folders import RECORDS, begun, ended, entered, opened, refusal


def finished_ids(folder):
    return [record.id for record in read_records(folder, Problem)]


def test_a_stage_goes_on_where_it_was(tmp_path):
    folder = tmp_path / "deep" / "out"
    with opened(folder) as store:
        assert store.done == set()
        store.write(RECORDS[:2])
        store.write([])
        assert store.done == {"p/0", "p/1"}
    with pytest.raises(InputError, match="has not finished"):
        finished_ids(folder)
    with opened(folder) as store:
        assert store.done == {"p/0", "p/1"}
        assert not store.finished
        store.write(iter(RECORDS[2:3]))
        store.finish({"solutions": 3})
    assert finished_ids(folder) == ["p/0", "p/1", "p/2"]
    again = opened(folder)
    assert (again.finished, again.summary, again.done) == (True, {"solutions": 3}, {"p/0", "p/1", "p/2"})


def test_what_is_written_is_on_disk_at_once(tmp_path):
    with opened(tmp_path / "out") as store:
        store.write(RECORDS[:2])
        assert (tmp_path / "out" / "part-00000.jsonl").read_text() == dump_line(RECORDS[0]) + dump_line(RECORDS[1])


def test_a_line_torn_at_any_byte_is_cut_and_drawn_again(tmp_path):
    """Three lines on disk, cut off after every one of their bytes: whole lines stay, the rest is asked for again.

    Non-ASCII letters take two bytes, so some cuts leave half a letter.
    """
    whole = "".join(map(dump_line, RECORDS[1:4])).encode()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == 3
    with opened(tmp_path / "out"):
        pass
    shard = tmp_path / "out" / "part-00000.jsonl"
    for cut in range(len(whole) + 1):
        shard.write_bytes(whole[:cut])
        with opened(tmp_path / "out") as store:
            intact = sum(end <= cut for end in ends)
            assert store.done == {record.id for record in RECORDS[1 : 1 + intact]}
            assert (shard.stat().st_size if shard.exists() else 0) == [0, *ends][intact]
            store.write(record for record in RECORDS[1:4] if record.id not in store.done)
        assert shard.read_bytes() == whole


@given(st.data())
@settings(max_examples=25)
def test_however_often_it_is_torn_each_record_is_there_once(data):
    """Random batches, and after each a cut anywhere after the line before the last: nothing is lost or doubled."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        for _ in range(data.draw(st.integers(1, 4))):
            with opened(out) as store:
                missing = [record for record in RECORDS if record.id not in store.done]
                store.write(missing[: data.draw(st.integers(0, len(missing)))])
            for shard in out.glob("part-*.jsonl"):
                whole = shard.read_bytes()
                last = whole[:-1].rfind(b"\n") + 1
                shard.write_bytes(whole[: data.draw(st.integers(last, len(whole)))])
        with opened(out) as store:
            store.write(record for record in RECORDS if record.id not in store.done)
            store.finish({})
        assert sorted(finished_ids(out)) == [record.id for record in RECORDS]


def test_a_line_changed_from_outside_is_refused(tmp_path):
    with opened(tmp_path / "out") as store:
        store.write(RECORDS[:2])
    shard = tmp_path / "out" / "part-00000.jsonl"
    shard.write_text(dump_line(RECORDS[0]) + '{"id":"p/1"}\n')
    said = refusal(tmp_path / "out")
    assert said.startswith(f"{shard}:2: missing key 'problem'")
    assert said.endswith("; the shard was edited after the stage wrote it")
    shard.write_text("{\n" + dump_line(RECORDS[0]))
    assert refusal(tmp_path / "out").startswith(f"{shard}:1: ")


def test_the_manifest_says_what_made_the_records(tmp_path):
    write_records(tmp_path / "p.jsonl", RECORDS[:1])
    ended(tmp_path / "out", {"n": 0}, config={"model": Path("base")}, inputs={"problems": tmp_path / "p.jsonl"})
    said = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert said["config"] == {"model": "base"}
    assert said["inputs"]["problems"]["path"] == str(tmp_path / "p.jsonl")
    assert (said["stage"], said["finished"], said["summary"]) == ("generate", True, {"n": 0})
    assert {"stepverify", "torch", "transformers"} <= said["versions"].keys()
    assert said["versions"]["torch"] == installed("torch")["torch"]


def test_no_record_is_written_twice(tmp_path):
    with opened(tmp_path / "out") as store:
        store.write(RECORDS[:2])
        for again in (RECORDS[1:3], [RECORDS[4], RECORDS[4]]):
            with pytest.raises(ValueError, match=r"record p/\d is already in "):
                store.write(again)
    with opened(tmp_path / "out") as resumed:
        assert resumed.done == {"p/0", "p/1"}
        with pytest.raises(ValueError, match="record p/0 is already in "):
            resumed.write(RECORDS[:1])


def test_the_key_of_a_ranking_is_its_problem():
    assert record_key(Ranking(problem_id="p/7", num_samples=1, sizes=[1], curves={})) == "p/7"
    assert record_key(RECORDS[3]) == "p/3"


def test_full_shards_are_followed_by_new_ones(tmp_path, monkeypatch):
    """A line has 28 bytes. A shard is full above 30: it takes two of them, then comes the next."""
    monkeypatch.setattr(store_module, "SHARD_BYTES", 30)
    records = [Problem(id=f"p/{i}", problem="é") for i in range(5)]
    assert len(dump_line(records[1]).encode()) == 28
    with opened(tmp_path / "out") as store:
        for record in records[:3]:
            store.write([record])
    with opened(tmp_path / "out") as store:
        assert store.done == {"p/0", "p/1", "p/2"}
        for record in records[3:]:
            store.write([record])
        store.finish({})
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").glob("part-*")}
    assert sizes == {"part-00000.jsonl": 56, "part-00001.jsonl": 56, "part-00002.jsonl": 28}
    assert finished_ids(tmp_path / "out") == [record.id for record in records]


_WRITER = """
import sys, time
from sampling.runtime.store import Store
from stepverify.records import Problem

with Store(sys.argv[1], Problem, stage="generate", config={}, inputs={}) as store:
    print("open", len(store.done), flush=True)
    for i in range(400):
        if f"p/{i}" not in store.done:
            store.write([Problem(id=f"p/{i}", problem="x" * (i * 37 % 4000))])
            print(i, flush=True)
        if i == 0 and sys.argv[2:] == ["wait"]:
            sys.stdin.read()
    store.finish({})
"""


def test_a_killed_process_loses_and_doubles_nothing(tmp_path):
    """Killed for good (SIGKILL) at random moments until it gets through: each record is there exactly once.

    What was reported as written is there after every kill.
    """
    rng = random.Random(0)
    out, kills, before = tmp_path / "out", 0, 0
    while True:
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(out)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        opening = writer.stdout.readline().split()
        assert opening[0] == "open"
        assert int(opening[1]) >= before
        reported = []
        if kills < 5:
            reported = [writer.stdout.readline() for _ in range(rng.randrange(1, 40))]
            time.sleep(rng.random() / 300)
            writer.send_signal(signal.SIGKILL)
            kills += 1
        reported += writer.stdout
        if writer.wait() == 0:
            break
        assert writer.returncode == -signal.SIGKILL
        before = 1 + max(int(line) for line in reported if line.endswith("\n"))
    assert kills == 5
    assert finished_ids(out) == [f"p/{i}" for i in range(400)]


def test_two_writers_of_one_folder(tmp_path):
    """The second start is refused while the first writes; afterwards it finds all done."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", _WRITER, str(out)]
    first = subprocess.Popen([*command, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert [first.stdout.readline() for _ in range(2)] == ["open 0\n", "0\n"]
    assert refusal(out).startswith(f"{out}: process {first.pid} on ")
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (second.returncode, second.stdout) == (1, "")
    assert f"process {first.pid} on " in second.stderr
    first.communicate()
    assert finished_ids(out) == [f"p/{i}" for i in range(400)]
    assert entered(out).finished


def test_looking_changes_nothing(tmp_path):
    """A line that is being written looks torn: only the writer that holds the lock cuts it off."""
    out = tmp_path / "out"
    with opened(out) as store:
        store.write(RECORDS[:2])
        shard = out / "part-00000.jsonl"
        with shard.open("ab") as file:
            file.write(dump_line(RECORDS[2]).encode()[:-3])
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        assert not opened(out).finished
        assert [record.id for record in store.records()] == ["p/0", "p/1"]
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert entered(out).done == {"p/0", "p/1"}
    assert shard.read_text() == "".join(map(dump_line, RECORDS[:2]))


def test_a_shard_without_a_record_goes_at_the_next_start(tmp_path):
    """Killed between a new shard and its first record."""
    out = tmp_path / "out"
    begun(out)
    (out / "part-00001.jsonl").touch()
    with opened(out) as store:
        assert not (out / "part-00001.jsonl").exists()
        store.write(RECORDS[1:2])
        store.finish({})
    assert finished_ids(out) == ["p/0", "p/1"]


@pytest.mark.parametrize("change", ["cut", "twice", "edited"])
def test_a_finished_folder_that_was_changed_is_noticed(tmp_path, change):
    out = tmp_path / "out"
    with opened(out) as store:
        store.write(RECORDS[:3])
        store.finish({})
    manifest, shard = json.loads((out / MANIFEST).read_text()), out / "part-00000.jsonl"
    assert manifest["records"] == {"count": 3, "sha256": fingerprint(out)}
    lines = [*map(dump_line, RECORDS[:3])]
    if change == "edited":
        shard.write_text("".join(lines).replace("é", "e"))
        with pytest.raises(InputError, match=r"the digest of its records is .*, its manifest.json says "):
            fingerprint(out)
        return
    shard.write_text("".join(lines[:2] if change == "cut" else [*lines, dump_line(RECORDS[4])]))
    said = f"it holds {2 if change == 'cut' else 4} records, its manifest.json says 3"
    with pytest.raises(InputError, match=said):
        finished_ids(out)
    assert said in refusal(out)


def test_people_may_edit_a_folder_that_is_meant_for_it(tmp_path):
    out = tmp_path / "out"
    with Store(out, Problem, stage="select", config={}, inputs={}, editable=True) as store:
        store.write(RECORDS[:1])
        store.finish({})
    (out / "part-00000.jsonl").write_text(dump_line(RECORDS[0]).replace('"problem":""', '"problem":"?"'))
    assert fingerprint(out)
    assert finished_ids(out) == ["p/0"]
