"""One trial of the campaign: a piece of work in a process of its own, and how it ended."""

from __future__ import annotations

import io
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stepverify.faults import reported

SURVIVED = ("accepted", "refused", "kept", "equal", "graded")
"""Outcomes that are as they should be; all others are faults of the programs."""

FAULTS = ("traceback", "lost", "doubled", "changed", "hang", "unnamed", "unreadable", "silent")
"""Tracebacks; records lost, doubled or changed; no end; a message without the file; an output that nobody can read; an
exit code 0 for what went wrong."""

PROGRAM = "campaign"


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        key: its name in the results; the same seed gives the same trials.
        kind: the row of the table.
        run: what is done, in a folder of its own; gives the outcome and what is worth reading about it.
    """

    key: str
    kind: str
    run: Callable[[Path], tuple[str, str]]


@dataclass(frozen=True)
class End:
    """How a process ended: its exit code, None where it was stopped for its time, and what it printed."""

    code: int | None
    out: str
    err: str


def forked(work: Callable[[], object], seconds: float = 60.0, *, kill_after: float | None = None) -> End:
    """Run a piece of work in a forked process, as a program runs it, and wait for its end.

    Args:
        work: called in the new process.
        seconds: of CPU time, its workers' included, after which it counts as hanging; by the clock ten times as many.
        kill_after: seconds after which it is killed on purpose.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            os.setsid()
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(_ended(work))
        try:
            code = _wait(pid, seconds) if kill_after is None else _wait(pid, seconds, kill_after)
        finally:
            _kill_group(pid)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read(100_000).decode(errors="replace"))
        return End(-signal.SIGKILL if code is None and kill_after is not None else code, *texts)


def _ended(work: Callable[[], object]) -> int:
    """Run the work, and return the exit code of a program that does so."""
    for number in (1, 2):
        stream = io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", write_through=True)
        setattr(sys, {1: "stdout", 2: "stderr"}[number], stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with reported(PROGRAM):
            work()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _wait(pid: int, seconds: float, clock: float | None = None) -> int | None:
    """Wait for a process; its exit code, minus a signal's number, or None where it had to be killed."""
    watched = os.pidfd_open(pid)
    end = time.monotonic() + (10 * seconds if clock is None else clock)
    try:
        while not (ready := select.select([watched], [], [], max(0.0, min(5.0, end - time.monotonic())))[0]):
            if time.monotonic() >= end or _cpu_seconds(pid) > seconds:
                break
    finally:
        os.close(watched)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if ready else None


def _cpu_seconds(session: int) -> float:
    """Sum the CPU time of all processes of a session: load does not make a trial hang."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if fields[3] == str(session):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _kill_group(pid: int) -> None:
    """End what the process has left: workers that a kill has orphaned."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def judge(end: End, names: Iterable[str]) -> tuple[str, str]:
    """Judge the end of a program that was given something bad.

    Args:
        end: of the process.
        names: one of them must stand in the message: the file, the folder or the key.
    """
    last = end.err.strip().splitlines()[-1] if end.err.strip() else ""
    if end.code is None:
        return "hang", last
    if "Traceback" in end.err or "a fault of this program" in end.err or end.code < 0:
        return "traceback", f"exit {end.code}: {end.err[-1500:]}"
    if end.code == 0:
        return "accepted", end.out[-200:]
    said = [
        line
        for line in end.err.splitlines()
        if line.startswith((f"{PROGRAM}: ", "sampling ", "stepverify ", "error: "))
    ]
    if len(said) != 1 or not any(name in said[0] for name in names):
        return "unnamed", f"exit {end.code}: {end.err[-800:]}"
    if end.code == 1 and "the same command goes on" in said[0]:
        return "kept", said[0]
    if end.code in (2, 130, 143):
        return "refused", said[0]
    return "traceback", f"exit {end.code}: {end.err[-800:]}"
