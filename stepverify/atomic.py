"""Write files and folders completely or not at all.

A draft is written next to its target, in the same file system, synced to disk, and then renamed. Permissions follow the
user's umask.
"""

from __future__ import annotations

import glob
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stepverify.records import InputError

HOST = socket.gethostname()


@contextmanager
def replacing(target: str | Path) -> Iterator[Path]:
    """Yield a draft path that becomes ``target`` after the block.

    The block writes a file or a folder there. If it raises, the draft is removed, along with parent folders that were
    created for it; an earlier ``target`` stays. A draft is named by its process; drafts of processes of this machine
    that have ended are removed.

    Raises:
        InputError: ``target`` is a device or a pipe.
    """
    target = Path(target)
    if target.is_symlink():  # the link stays; its target is replaced
        target = target.resolve()
    refuse_others(target)
    draft = draft_of(target)
    with new_folder(target.parent):
        restore(target)
        _sweep(target)
        try:
            yield draft
            publish(draft, target)
        finally:
            remove(draft)


def draft_of(target: Path) -> Path:
    """Return the path of this process's draft of a target."""
    return target.with_name(f".{target.name}.{HOST}-{os.getpid()}.draft")


def refuse_others(target: Path, folder: bool | None = None) -> None:
    """Refuse a place at which nothing may be written.

    Args:
        target: where a file or folder is to be.
        folder: it is to be a folder, or else a file; None for either.

    Raises:
        InputError: a link, where the kind is given; a device or a pipe; a file for a folder, or the reverse.
    """
    if folder is not None and target.is_symlink():
        raise InputError(f"{target}: a link; give the path that it names, {target.resolve()}")
    if not target.exists():
        return
    if not (target.is_dir() or target.is_file()):
        raise InputError(f"{target}: neither a file nor a folder; choose another output")
    if folder is not None and target.is_dir() != folder:
        kinds = ("a folder", "a file") if target.is_dir() else ("a file", "a folder")
        raise InputError(f"{target}: {kinds[0]}, where {kinds[1]} is to be written; choose another output")


def _sweep(target: Path) -> None:
    """Remove the drafts of processes on this machine that have ended."""
    for draft in target.parent.glob(f".{glob.escape(target.name)}.{glob.escape(HOST)}-*.draft"):
        pid = draft.name.removesuffix(".draft").rpartition("-")[2]
        if pid.isdigit() and (int(pid) == os.getpid() or not is_running(int(pid))):
            remove(draft)


def is_running(pid: int) -> bool:
    """Tell whether this machine has a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def write(target: str | Path, content: str | bytes) -> None:
    """Write one file atomically, text as UTF-8."""
    with replacing(target) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def check_written(folder: Path, names: Iterable[str]) -> None:
    """Check that files of one output are all there: each was written alone, and the folder may have been removed.

    Raises:
        InputError: one is missing.
    """
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise InputError(f"{folder / missing[0]}: was removed while the output was written; run the command again")


def publish(draft: Path, target: Path) -> None:
    """Rename a complete draft (a file, link or folder) to ``target``.

    A folder cannot replace another one: the earlier folder is renamed, and removed once the draft is in its place.
    After a kill in between, the next write restores its name.
    """
    if not draft.is_symlink():
        _settle(draft)
    aside = _aside(target)
    if moved := target.is_dir() and not target.is_symlink():
        remove(aside)
        target.rename(aside)
    try:
        draft.replace(target)
    except BaseException:
        if moved:
            restore(target)
        raise
    sync(target.parent)
    remove(aside)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.aside")


def restore(target: Path) -> None:
    """Restore a folder that a killed :func:`publish` had renamed."""
    if not target.exists() and _aside(target).exists():
        _aside(target).rename(target)


def _settle(draft: Path) -> None:
    """Sync all files to disk, and set the permissions of the umask.

    Libraries that write through a temporary file leave it readable by its owner only (0600).
    """
    wanted = 0o666 & ~_umask()
    for path in [*draft.rglob("*"), draft] if draft.is_dir() else [draft]:
        if path.is_file() and wanted & ~(mode := path.stat().st_mode & 0o777):
            path.chmod(mode | wanted)
        sync(path)


def _umask() -> int:
    """Read the umask.

    Where the system does not report it, it is set for a moment, to the strictest.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    value = os.umask(0o077)
    os.umask(value)
    return value


def sync(path: Path) -> None:
    """Sync a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_folder(folder: Path) -> list[Path]:
    """Create a folder; return it and its parents that were missing."""
    missing = []
    for path in (folder, *folder.parents):
        if path.exists():
            break
        missing.append(path)
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: list[Path]) -> None:
    """Remove empty folders, up to the first that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Create a folder and its parents; remove them if the block raises."""
    made = make_folder(folder)
    try:
        yield
    except BaseException:
        remove_empty(made)
        raise
