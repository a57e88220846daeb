"""Processes of runs, as torchrun starts them; all are forked from one process that has imported torch."""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.processes import ROOT, free_port


@dataclass
class Ended:
    """What the ranks of a run have left: the largest exit code, and all that they wrote."""

    returncode: int
    output: str


def run_ranks(num_ranks: int, *commands: list[str]) -> list[Ended]:
    """Run commands of ``stepverify`` on so many processes, one command after the other."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.ranks", str(num_ranks), json.dumps(commands)],
        check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return [Ended(*ended) for ended in json.loads(done.stdout)]


def _run(num_ranks: int, words: list[str]) -> tuple[int, str]:
    """Fork the ranks of a run, and wait for all of them."""
    shared = {
        "TORCHELASTIC_RUN_ID": "tests", "WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks),
        "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        ranks = {}
        for rank in range(num_ranks):
            file = Path(folder) / str(rank)
            if not (process := os.fork()):
                _become(shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, file, words)
            ranks[process] = file
        codes: dict[int, int] = {}
        while len(codes) < num_ranks:
            process, status = os.waitpid(-1, 0)
            codes[process] = abs(os.waitstatus_to_exitcode(status))
            if codes[process]:  # the others would wait for it
                for other in ranks.keys() - codes.keys():
                    os.kill(other, signal.SIGKILL)
        return max(codes.values()), "".join(file.read_text() for file in ranks.values())


def _become(environment: dict[str, str], file: Path, words: list[str]) -> None:
    """Run a command as one rank, and end this process."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    from stepverify.cli import main

    os.environ.update(environment)
    rank_zero_only.rank = int(environment["RANK"])  # Lightning has looked when it was imported
    code = 1
    with file.open("w") as written:
        for stream in (1, 2):
            os.dup2(written.fileno(), stream)
        try:
            main(words)
            code = 0
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


if __name__ == "__main__":
    gc.disable()  # nothing that is imported is garbage
    for module in (
        "stepverify.trainer",
        "sampling.engines",
        "torch.distributed.fsdp",
        "torch.utils.tensorboard",
        "transformers.models.qwen2.modeling_qwen2",
    ):
        importlib.import_module(module)
    gc.enable()
    gc.freeze()  # the ranks share it

    print(json.dumps([_run(int(sys.argv[1]), words) for words in json.loads(sys.argv[2])]))
