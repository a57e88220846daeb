"""Encoded examples are found again in a cache, whole, by any number of processes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from stepverify.data import cache
from stepverify.data.arrays import INDEX, Unwritable
from stepverify.data.cache import cache_folder, find_or_build, waiting_lock
from stepverify.data.encode import SolutionEncoder
from stepverify.data.table import ExampleTable, TableWriter
from stepverify.readers import Solutions
from stepverify.readers.base import ReasonCounter
from stepverify.records import InputError
from tests.helpers.cached import TEMPLATE, Elsewhere, Run, tables, write_graded
from tests.helpers.stores import example


@pytest.fixture
def data(tmp_path):
    """A folder of solutions."""
    return write_graded(tmp_path / "data")


def test_a_second_run_encodes_nothing_and_says_the_same(data, tmp_path, characters, caplog):
    """But for 16 solutions that are compared with what was kept. The counts of what was left out are kept too."""
    first, second, apart = (Run(characters, folder) for folder in (tmp_path / "c", tmp_path / "c", None))
    with caplog.at_level("INFO"):
        wanted, found, other = (run(Solutions(str(data))) for run in (first, second, apart))
    (folder,) = tables(tmp_path / "c")
    line = f"fit: 36 of 40 solutions, {wanted.lengths.sum():,} tokens; left out: 4 longer than max_length = 40 tokens (p/3#0)"
    assert caplog.messages == [f"{line}; kept in {folder}", f"{line}; read from {folder}", line]
    assert list(found) == list(wanted) == list(other)
    assert [len(run.encoded) for run in (first, second, apart)] == [40, 16, 40]
    assert (found.digests, found.left_out) == (wanted.digests, wanted.left_out)
    assert found.left_out.first == wanted.left_out.first
    assert found.weights.tolist() == other.weights.tolist()


def test_reading_ahead_changes_no_id(characters_bos, make_solution):
    """In one call, in one a text, and where more texts come than are remembered."""
    records = [make_solution([f"{i}+1", "", " 2\n3"], problem=f"a{i}") for i in range(30)]
    ahead, plain = SolutionEncoder(characters_bos, TEMPLATE), SolutionEncoder(characters_bos, TEMPLATE)
    ahead.read_ahead(records)
    assert {*map(len, ahead._known.values())} > {1}
    assert [ahead.outcome(r, None) for r in records] == [plain.outcome(r, None) for r in records]
    known = dict(ahead._known)
    ahead.read_ahead(records)
    assert ahead._known == known == plain._known


# ── disks, locks, other processes ─────────────────────────────────────────────────────────────────


def _damage_index(folder: Path) -> None:
    (folder / INDEX).write_bytes((folder / INDEX).read_bytes().replace(b'"solutions": 40', b'"solutions": 41'))


def _flip(folder: Path) -> None:
    with (folder / "targets").open("r+b") as file:
        file.seek(5)
        file.write(b"\1")


DAMAGES = {
    "a file that is cut off": (lambda folder: os.truncate(folder / "input_ids", 8), "has 8 bytes"),
    "a file that is gone": (lambda folder: (folder / "ends").unlink(), "ends is missing"),
    "a byte": (_flip, "targets has changed since it was written"),
    "the index": (_damage_index, "is not whole"),
    "no index": (lambda folder: (folder / INDEX).unlink(), None),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_built_again(damage, data, tmp_path, characters, warned):
    """A process that has it open keeps the one that was whole."""
    wanted = Run(characters, tmp_path / "c")(Solutions(str(data)))
    (folder,) = tables(tmp_path / "c")
    harm, said = DAMAGES[damage]
    harm(folder)
    second, third = Run(characters, tmp_path / "c"), Run(characters, tmp_path / "c")
    assert list(second(Solutions(str(data)))) == list(Run(characters, None)(Solutions(str(data))))
    assert warned().count(f"{said}") == 1 if said else not warned()
    assert len(second.encoded) >= 40
    third(Solutions(str(data)))
    assert len(third.encoded) == 16
    assert tables(tmp_path / "c") == [folder]
    assert len(wanted) == 36


def test_an_unwritable_folder(data, tmp_path, characters, warned):
    (tmp_path / "file").touch()
    run = Run(characters, tmp_path / "file" / "c")
    assert len(run(Solutions(str(data)))) == 36
    assert "data.cache: " in warned()
    assert "Not a directory; examples of fit are encoded into a temporary folder" in warned()


def test_a_full_disk(data, tmp_path, characters, warned, monkeypatch):
    """The cache's first, then the temporary folder's too."""
    full = [tmp_path / "c"]
    flush = TableWriter._flush

    def limited(self):
        if any(self.folder.is_relative_to(folder) for folder in full):
            raise Unwritable("No space left on device")
        flush(self)

    monkeypatch.setattr(TableWriter, "_flush", limited)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert len(Run(characters, tmp_path / "c")(Solutions(str(data)))) == 36
    assert f"data.cache: {tmp_path / 'c'}: No space left on device; examples of fit are encoded into" in warned()
    assert tables(tmp_path / "c") == []
    full.append(tmp_path)
    with pytest.raises(InputError, match=r"fit: .*: No space left on device; choose another folder by TMPDIR"):
        Run(characters, tmp_path / "c")(Solutions(str(data)))
    gc.collect()  # the first one's folder goes with its store
    assert not [*tmp_path.glob("stepverify-*")]


def test_a_cache_that_one_may_only_read(data, tmp_path, characters, monkeypatch):
    """As a folder that another user has filled: no lock is made, the table is read."""
    Run(characters, tmp_path / "c")(Solutions(str(data)))

    def refused(path, *arguments, **known):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cache, "waiting_lock", refused)
    run = Run(characters, tmp_path / "c")
    assert len(run(Solutions(str(data)))) == 36
    assert len(run.encoded) == 16


def _build(folder: Path, log: Path, seconds: float, count: int) -> None:
    def build(draft: Path) -> None:
        with log.open("a") as file:
            file.write("built\n")
        writer = TableWriter(draft)
        for i in range(count):
            writer.add(example(i))
            writer._flush()
            time.sleep(seconds / count)
        writer.finish(count, ReasonCounter(), ReasonCounter())

    table, _ = find_or_build(folder, build, lambda table: None, "fit", ExampleTable)
    assert [table.read(i).input_ids[0] for i in range(len(table))] == [*range(count)]


def test_two_processes_build_once(tmp_path):
    """The second waits and reads what the first has built. Nothing but the table is left."""
    context = multiprocessing.get_context("fork")
    several = [
        context.Process(target=_build, args=(tmp_path / "c" / "key", tmp_path / "log", 0.3, 5)) for _ in range(3)
    ]
    for process in several:
        process.start()
    for process in several:
        process.join(60)
    assert [process.exitcode for process in several] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "built\n"
    assert tables(tmp_path / "c") == [tmp_path / "c" / "key"]


@pytest.mark.slow
def test_a_killed_build_is_never_read(tmp_path):
    """Its lock goes with it; the draft is removed by the next build."""
    context, folder = multiprocessing.get_context("fork"), tmp_path / "c" / "key"
    killed = context.Process(target=_build, args=(folder, tmp_path / "log", 60.0, 60))
    killed.start()
    waiting = time.monotonic() + 60
    while not any(folder.parent.glob(".key.*.draft/ends")):
        assert time.monotonic() < waiting
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    assert not folder.exists()
    _build(folder, tmp_path / "log", 0.0, 3)
    assert (tmp_path / "log").read_text() == "built\n" * 2
    assert tables(tmp_path / "c") == [folder]


def test_the_draft_of_another_build_stays_while_that_runs(tmp_path):
    """It is recognised by its key, the lock of which is held, whatever host and process made it."""
    draft = tmp_path / "c" / ".other.some.host-1.draft"
    draft.mkdir(parents=True)
    with waiting_lock(tmp_path / "c" / "other.lock", "other"):
        _build(tmp_path / "c" / "key", tmp_path / "log", 0.0, 3)
        assert draft.is_dir()
    _build(tmp_path / "c" / "third", tmp_path / "log", 0.0, 3)
    assert not draft.exists()


def test_a_lock_is_held_by_one(tmp_path):
    with waiting_lock(tmp_path / "lock", "fit"):
        with waiting_lock(tmp_path / "lock") as free:
            assert not free
        with waiting_lock(tmp_path / "other") as free:
            assert free
    assert tables(tmp_path) == []


def test_bad_data_leaves_nothing(tmp_path, characters, data):
    class Refusing(Run):
        def encode(self, record):
            raise InputError(f"solution {record.id}: no outcome label")

    with pytest.raises(InputError, match=r"^solution p/0#0: no outcome label$"):
        Refusing(characters, tmp_path / "c")(Solutions(str(data)))
    with pytest.raises(InputError, match=r"^fit: none of 40 solutions of Solutions can be used: 40 longer than"):
        Run(characters, tmp_path / "c", max_length=3)(Solutions(str(data)))
    with pytest.raises(
        InputError, match="no problem is in fold 'validation', which a hash of each problem's id decides"
    ):
        Run(characters, tmp_path / "c")(Solutions(str(data), fold="validation", validation_fraction=1e-9))
    assert tables(tmp_path / "c") == []


def test_a_reader_that_fails_is_not_taken_for_a_full_disk(tmp_path, characters, warned):
    class Broken(Elsewhere):
        def solutions(self):
            yield from super().solutions()
            if self.read > 1:
                raise ConnectionResetError("the hub is gone")

    with pytest.raises(ConnectionResetError):
        Run(characters, tmp_path / "c")(Broken("a"))
    assert "data.cache" not in warned()


def test_what_was_not_used_for_longest_is_removed(data, tmp_path, characters, monkeypatch):
    """Room for two tables: the older of two that nobody has open goes, and a draft that a killed process left."""
    root = tmp_path / "c"
    built = {}
    for length in (31, 32, 33):
        before = {*tables(root)} if root.exists() else set()
        built[length] = Run(characters, root, max_length=length)(Solutions(str(data)))
        (folder,) = {*tables(root)} - before
        os.utime(folder / INDEX, (length, length))
        built[length] = folder if length != 31 else built[length]
    open_one = built[31]
    (root / ".gone.draft").mkdir()
    size = sum(f.stat().st_size for f in built[32].iterdir())
    monkeypatch.setenv("STEPVERIFY_CACHE_GIB", str(3.5 * size / 2**30))
    Run(characters, root, max_length=34)(Solutions(str(data)))
    left = tables(root)
    assert built[32] not in left
    assert {open_one.table.folder, built[33]} < {*left}
    assert len(left) == 3
    monkeypatch.setenv("STEPVERIFY_CACHE_GIB", "much")
    with pytest.raises(InputError, match="STEPVERIFY_CACHE_GIB: expected a number, got 'much'"):
        Run(characters, root, max_length=35)(Solutions(str(data)))


def test_where_the_cache_lies(monkeypatch):
    home = Path.home()
    monkeypatch.setenv("STEPVERIFY_CACHE", "/fast/cache")
    assert cache_folder(True) == Path("/fast/cache/examples")
    assert cache_folder("~/here") == home / "here"
    assert cache_folder(False) is None
    monkeypatch.delenv("STEPVERIFY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder(True) == Path("/xdg/stepverify/examples")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder(True) == home / ".cache/stepverify/examples"


# ── through the program ───────────────────────────────────────────────────────────────────────────


def test_a_second_fit_encodes_nothing_and_learns_the_same(tmp_path, monkeypatch, caplog):
    """A PRM of the quickstart twice, once without a cache: equal weights, and 48 + 48 solutions encoded only once."""
    from safetensors.torch import load_file

    from stepverify.modules import ProcessRewardModel
    from tests.helpers.fits import fit, write_labelled
    from tests.helpers.runs import BACKBONE

    labelled = write_labelled(tmp_path / "labelled")
    monkeypatch.setenv("STEPVERIFY_CACHE", str(tmp_path / "cache"))
    encode, calls = ProcessRewardModel.encode, []
    monkeypatch.setattr(
        ProcessRewardModel, "encode", lambda self, r, **known: calls.append(r.id) or encode(self, r, **known)
    )
    weights = []
    for number in range(2):
        with caplog.at_level("INFO"):
            export = fit(tmp_path / f"run{number}", "ProcessRewardModel", labelled, BACKBONE, validation=labelled)
        weights.append(load_file(export / "model.safetensors"))
    # Validation reads the same solutions: what training has encoded serves it too.
    assert len(calls) == 48 + 16 + 2 * 16
    assert (caplog.text.count("kept in"), caplog.text.count("read from")) == (1, 3)
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])
