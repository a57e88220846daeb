import errno
import os
import tempfile
from pathlib import Path

import pytest

from stepverify.faults import reported
from stepverify.records import InputError


def said(error, capsys):
    """What is printed, and the exit code."""
    with pytest.raises(SystemExit) as end, reported("sampling rank"):
        raise error
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err.removesuffix("\n"), end.value.code


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (InputError("a.jsonl:3: key 'id': missing"), "a.jsonl:3: key 'id': missing", 2),
        (caused(ValueError("parser"), InputError("sizes: [0]")), "sizes: [0]", 2),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "/data/x: Permission denied", 2),
        (OSError(errno.EROFS, "Read-only file system", "a", None, "b"), "a → b: Read-only file system", 2),
        (caused(RuntimeError("writer"), OSError(errno.EIO, "Input/output error")), "Input/output error", 2),
        (InputError("two\nlines \udcff"), "two lines \\udcff", 2),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x/part-00000.jsonl"),
            "runs/x/part-00000.jsonl: No space left on device; what is written is kept, the same command goes on", 1,
        ),
        (KeyboardInterrupt(), "interrupted; what is finished is kept, the same command goes on", 130),
    ],
)  # fmt: skip
def test_one_line_and_an_exit_code(error, line, code, capsys):
    assert said(error, capsys) == (f"sampling rank: {line}", code)


def test_the_traceback_of_a_fault_is_kept(capsys, tmp_path, monkeypatch):
    """Also where an error of the system was handled before: it is not what went wrong."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    fault = ZeroDivisionError("division\nby zero")
    fault.__context__ = FileNotFoundError(errno.ENOENT, "No such file", "cache")
    line, code = said(fault, capsys)
    path = tmp_path / f"stepverify-traceback-{os.getpid()}.txt"
    assert line == f"sampling rank: ZeroDivisionError: division by zero (a fault of this program; traceback: {path})"
    assert code == 1
    assert path.read_text().startswith("FileNotFoundError")
    assert "raise error\nZeroDivisionError: division\nby zero" in path.read_text()


def test_without_a_place_for_the_traceback(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "gone"))
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only")))
    line, _ = said(RuntimeError(), capsys)
    assert line.endswith("RuntimeError (a fault of this program; traceback: could not be written; "
                         "STEPVERIFY_TRACEBACK=1 shows it)")  # fmt: skip


def test_errors_as_they_are_for_who_debugs(monkeypatch):
    monkeypatch.setenv("STEPVERIFY_TRACEBACK", "1")
    with pytest.raises(InputError, match="bad"), reported("sampling rank"):
        raise InputError("bad")


def test_exits_pass_through():
    with pytest.raises(SystemExit) as end, reported("stepverify fit"):
        raise SystemExit(143)
    assert end.value.code == 143
