"""Processes of one run, as torchrun starts them; none of them imports torch again."""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.processes import ROOT, free_port

# One process of each test session imports these; the ranks of every run are forked from it.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["stepverify.trainer", "sampling.sample_accuracy"])


@dataclass
class Ended:
    """What the ranks of a run have left: the largest exit code, and all that they wrote to stderr."""

    returncode: int
    stderr: str


def run_ranks(folder: Path, num_ranks: int, *words: str) -> Ended:
    """Run ``stepverify`` on so many processes; what they write goes to files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = {
        "TORCHELASTIC_RUN_ID": "tests", "WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks),
        "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    files = [folder / f"rank-{rank}.txt" for rank in range(num_ranks)]
    ranks = [
        CONTEXT.Process(target=_run, args=(shared | {"RANK": str(i), "LOCAL_RANK": str(i)}, file, words))
        for i, file in enumerate(files)
    ]
    try:
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(300)
    finally:
        for rank in ranks:
            rank.kill()
    return Ended(max(abs(rank.exitcode or 0) for rank in ranks), "".join(file.read_text() for file in files))


def _run(environment: dict[str, str], file: Path, words: tuple[str, ...]) -> None:
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    with file.open("w") as written:
        for stream in (1, 2):
            os.dup2(written.fileno(), stream)
    from stepverify.cli import main

    main(list(words))
