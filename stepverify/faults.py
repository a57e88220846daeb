"""Report errors of a command in one line, with an exit code that says what kind they are."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stepverify.records import InputError

INPUT, FAILED, INTERRUPTED = 2, 1, 130  # exit codes

_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def reported(program: str) -> Iterator[None]:
    """End the process with one line on stderr where the block raises.

    Exit codes: 2 for bad input and for files that cannot be read or written; 1 for a full disk, after which the same
    command goes on, and for faults of the program, whose traceback is kept in a file; 130 for Ctrl-C. With
    ``STEPVERIFY_TRACEBACK=1`` errors are raised as they are.

    Args:
        program: name and command, first in the line.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal of another encoding shows what it can
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("STEPVERIFY_TRACEBACK", "0") not in ("", "0"):
        yield
        return
    try:
        yield
    except KeyboardInterrupt:
        _end(program, "interrupted; what is finished is kept, the same command goes on", INTERRUPTED)
    except BrokenPipeError:  # the reader of stdout has ended, as `| head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        sys.exit(FAILED)
    except Exception as error:
        if isinstance(error, ValueError) and (bad := InputError.within(error)) is not None:
            _end(program, str(bad), INPUT)
        if (fault := _os_error(error)) is not None:
            full = fault.errno in _FULL
            _end(program, describe(fault) + ("; what is written is kept, the same command goes on" if full else ""),
                 FAILED if full else INPUT)  # fmt: skip
        _end(program, f"{_summary(error)} (a fault of this program; traceback: {_keep(error)})", FAILED)


def describe(error: OSError) -> str:
    """Describe an error of the operating system: file and reason."""
    reason = error.strerror or str(error)
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' → '.join(names)}: {reason}" if names else reason


def check_arguments(arguments: Sequence[str]) -> None:
    """Check that a command line is text: manifests and messages repeat it.

    Raises:
        InputError: an argument that is not UTF-8.
    """
    for number, argument in enumerate(arguments, start=1):
        if printable(argument) != argument and any("\ud800" <= c <= "\udfff" for c in argument):
            raise InputError(f"argument {number}: not UTF-8: {argument!a:.200}")


def printable(text: str) -> str:
    """Write what a terminal would act on, or no file can hold, as escapes."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def _os_error(error: BaseException | None) -> OSError | None:
    """Find the error of the operating system that an exception was raised from."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        error = error.__cause__
    return None


def _summary(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _keep(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    for folder in (tempfile.gettempdir(), "."):
        path = Path(folder) / f"stepverify-traceback-{os.getpid()}.txt"
        try:
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            return str(path)
        except OSError:
            continue
    return "could not be written; STEPVERIFY_TRACEBACK=1 shows it"


def _end(program: str, message: str, code: int) -> None:
    line = printable(" ".join(message.split("\n")))
    print(f"{program}: {line}", file=sys.stderr)
    sys.exit(code)
