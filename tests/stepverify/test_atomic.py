"""What is written appears as a whole, keeps what was there until then, and can be read by whom the umask lets."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepverify import atomic
from stepverify.records import InputError


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def fill(folder: Path, text: str) -> None:
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "one.txt").write_text(text)
    (folder / f"{text}.txt").write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


OLD, NEW = ({f"{text}.txt": text, "deep/one.txt": text} for text in ("old", "new"))


def test_files_have_the_permissions_of_the_umask(tmp_path: Path, umask: int):
    """Written plainly, or by a library through a temporary file of 0600; in a folder too. Folders can be entered."""
    with atomic.replacing(tmp_path / "a" / "private") as draft:
        descriptor, name = tempfile.mkstemp(dir=draft.parent)
        os.close(descriptor)
        Path(name).rename(draft)
    with atomic.replacing(tmp_path / "folder") as draft:
        fill(draft, "old")
        (draft / "old.txt").chmod(0o600)
    atomic.write(tmp_path / "text", "é")
    modes = {str(p.relative_to(tmp_path)): p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
    file, folder = 0o666 & ~umask, 0o777 & ~umask
    assert modes == {
        "a": folder, "a/private": file, "folder": folder, "folder/deep": folder, "folder/deep/one.txt": file,
        "folder/old.txt": file, "text": file,
    }  # fmt: skip
    assert (tmp_path / "text").read_bytes() == "é".encode()


def test_the_umask_is_the_same_where_the_system_does_not_tell(umask: int, monkeypatch: pytest.MonkeyPatch):
    told = atomic._umask()
    monkeypatch.setattr(Path, "read_text", lambda *_: "")
    assert (told, atomic._umask(), atomic._umask()) == (umask, umask, umask)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path):
    atomic.write(tmp_path / "file", "old")
    with atomic.replacing(tmp_path / "folder") as draft:
        fill(draft, "old")

    def fail(name: str) -> None:
        with atomic.replacing(tmp_path / name) as draft:
            fill(draft, "new")
            raise KeyboardInterrupt

    for name in ("file", "folder", "not/there/yet"):
        with pytest.raises(KeyboardInterrupt):
            fail(name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "old"
    assert content(tmp_path / "folder") == OLD


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path):
    fill(tmp_path / "disk" / "export", "old")
    (tmp_path / "export").symlink_to(tmp_path / "disk" / "export")
    with atomic.replacing(tmp_path / "export") as draft:
        fill(draft, "new")
    assert (tmp_path / "export").is_symlink()
    assert content(tmp_path / "disk" / "export") == NEW


class Killed(BaseException):
    """The process is gone: nothing that would clean up after it runs."""


@pytest.mark.parametrize("survived", [0, 1, 2, 3])
def test_a_folder_is_never_lost_wherever_a_kill_comes(tmp_path: Path, survived: int, monkeypatch: pytest.MonkeyPatch):
    """Killed after so many of the changes of names and removals: the old or the new folder is whole, under its own name

    or beside it; and the next write ends in its own, with nothing left over.
    """
    fill(tmp_path / "export", "old")
    fill(atomic.draft_of(tmp_path / "export"), "new")
    changes = 0

    def counted(change):
        def counting(*arguments):
            nonlocal changes
            changes += 1
            if changes > survived:
                raise Killed
            return change(*arguments)

        return counting

    with monkeypatch.context() as patched:
        for owner, name in ((Path, "rename"), (Path, "replace"), (atomic.shutil, "rmtree")):
            patched.setattr(owner, name, counted(getattr(owner, name)))
        if survived < 3:
            with pytest.raises(Killed):
                atomic.publish(atomic.draft_of(tmp_path / "export"), tmp_path / "export")
        else:
            atomic.publish(atomic.draft_of(tmp_path / "export"), tmp_path / "export")
            assert changes == 3  # aside, in its place, the old one removed
    found = [content(path) for path in (tmp_path / "export", tmp_path / ".export.aside") if path.exists()]
    assert found == {0: [OLD], 1: [OLD], 2: [NEW, OLD], 3: [NEW]}[survived]

    def fail() -> None:
        with atomic.replacing(tmp_path / "export"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert content(tmp_path / "export") == (OLD if survived < 2 else NEW)
    with atomic.replacing(tmp_path / "export") as draft:
        fill(draft, "last")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert content(tmp_path / "export") == {"last.txt": "last", "deep/one.txt": "last"}


def test_drafts_of_processes_that_have_ended_are_swept(tmp_path: Path):
    """Not those of a process that lives, of another machine, or of another target."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = socket.gethostname()
    names = {f".out.{host}-{pid}.draft": pid != ended.pid for pid in (ended.pid, os.getppid())}
    names |= {f".out.elsewhere-{ended.pid}.draft": True, f".outer.{host}-{ended.pid}.draft": True}
    for name in names:
        (tmp_path / name).write_text("half")
    atomic.write(tmp_path / "out", "whole")
    assert {p.name for p in tmp_path.iterdir()} == {"out", *(name for name, stays in names.items() if stays)}


def test_a_device_or_a_pipe_is_not_replaced(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(InputError, match=rf"^{tmp_path / 'pipe'}: neither a file nor a folder"):
            atomic.write(tmp_path / name, "text")
    with pytest.raises(InputError, match=r"^/dev/null: neither a file nor a folder"):
        atomic.write("/dev/null", "text")
