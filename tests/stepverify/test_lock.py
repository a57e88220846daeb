import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from stepverify import lock as lock_module
from stepverify.lock import LOCK, FolderLock, locked
from stepverify.records import InputError

_HOLDER = """
import sys, time
from pathlib import Path
from stepverify.lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def another(tmp_path, **changed):
    """A lock as another process would have left it."""
    known = {"host": "elsewhere", "pid": 7, "born": "1", "since": "2026-01-01 00:00:00"}
    (tmp_path / LOCK).write_text(json.dumps(known | changed))


def without_flock(monkeypatch, code=errno.ENOLCK):
    def refuse(*_):
        raise OSError(code, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(lock_module, "_SETTLE", 0.0)


def test_it_says_who_holds_it_and_leaves_nothing(tmp_path):
    with FolderLock(tmp_path):
        held = json.loads((tmp_path / LOCK).read_text())
        assert (held["host"], held["pid"]) == (socket.gethostname(), os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_one_process_at_a_time(tmp_path, holder):
    with pytest.raises(
        InputError, match=rf"^{tmp_path}: process {holder.pid} on .* has been writing it since \d{{4}}-"
    ):
        FolderLock(tmp_path)
    holder.communicate()
    assert list(tmp_path.iterdir()) == []
    FolderLock(tmp_path).release()


def test_a_killed_process_holds_nothing(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    FolderLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_this_process_holds_it_once(tmp_path):
    with FolderLock(tmp_path), pytest.raises(InputError, match=f"process {os.getpid()} on "):
        FolderLock(tmp_path)


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"host": "elsewhere"}'])
def test_a_lock_that_a_kill_tore_is_taken_over(tmp_path, torn):
    (tmp_path / LOCK).write_text(torn)
    FolderLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_another_machine_holds_it_as_long_as_it_shows_signs_of_life(tmp_path):
    """Its age is measured by the file system: 50 seconds without a sign are few, 70 are too many."""
    another(tmp_path)
    for age in (0, 50):
        os.utime(tmp_path / LOCK, (time.time() - age,) * 2)
        with pytest.raises(InputError, match="process 7 on elsewhere has been writing it since 2026-01-01"):
            FolderLock(tmp_path)
    os.utime(tmp_path / LOCK, (time.time() - 70,) * 2)
    FolderLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_the_holder_shows_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "_BEAT", 0.01)
    with FolderLock(tmp_path):
        os.utime(tmp_path / LOCK, (0, 0))
        ends = time.monotonic() + 30
        while (tmp_path / LOCK).stat().st_mtime == 0:
            assert time.monotonic() < ends
            time.sleep(0.01)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_flock_a_process_of_this_machine_is_looked_for(tmp_path, monkeypatch, code):
    """One that started when the lock says holds it; another with its number, or none, does not."""
    without_flock(monkeypatch, code)
    alive = subprocess.Popen(["sleep", "60"])
    try:
        another(tmp_path, host=socket.gethostname(), pid=alive.pid, born=lock_module._born(alive.pid))
        with pytest.raises(InputError, match=f"process {alive.pid} on "):
            FolderLock(tmp_path)
        another(tmp_path, host=socket.gethostname(), pid=alive.pid, born="12")
        FolderLock(tmp_path).release()
    finally:
        alive.kill()
        alive.wait()
    another(tmp_path, host=socket.gethostname(), pid=alive.pid, born="12")
    FolderLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_without_flock_the_last_of_two_at_once_has_it(tmp_path, monkeypatch):
    """Both find the folder free; the other one writes its name while this one waits for such a case."""
    without_flock(monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda _: another(tmp_path))
    with pytest.raises(InputError, match="process 7 on elsewhere"):
        FolderLock(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text())["host"] == "elsewhere"


def test_other_faults_of_the_file_system_are_no_missing_locks(tmp_path, monkeypatch):
    without_flock(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="no locks here"):
        FolderLock(tmp_path)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("thesis")
    (tmp_path / LOCK).symlink_to("precious")
    with pytest.raises(OSError, match=LOCK):
        FolderLock(tmp_path)
    assert (tmp_path / "precious").read_text() == "thesis"


def test_a_folder_that_was_made_for_nothing_goes(tmp_path):
    with pytest.raises(ValueError, match="typo"), locked(tmp_path / "deep" / "run"):
        raise ValueError("typo")
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "kept").touch()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["kept"]
