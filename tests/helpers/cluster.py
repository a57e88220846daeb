"""Scripts of ``lit_configs/cluster``, run with stubs in the place of SLURM's programs and of what they start."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path

import pytest
import yaml

from sampling import pipeline
from tests.helpers.parsing import parse
from tests.helpers.processes import ROOT

FOLDER = ROOT / "lit_configs" / "cluster"

# What the files are shipped with.
CONFIG = "lit_configs/math_shepherd/01_samples_train.yaml"
JOBS = "runs/math_shepherd/jobs/samples_train"
PIPELINE = shlex.split("sampling pipeline lit_configs/math_shepherd --to 04_labels_test --set model=Qwen/Qwen2.5-1.5B")
VLLM = "{class_path: VllmEngine, init_args: {model: Qwen/Qwen2.5-1.5B, max_model_len: 2048}}"
RAY = f"engine={{class_path: RayEngine, init_args: {{address: auto, engine: {VLLM}}}}}"

# Each notes its command line first, in one write; _LIVES are those that run until they are ended.
_NOTE = 'line=$(printf "%q " "${0##*/}" "$@")\nprintf "%s\\n" "$line" >>"$NOTES/log"\n'
_SRUN = 'while [[ $1 == --* ]]; do shift; done\necho $$ >>"$NOTES/pids"\nexec "$@"\n'
_LIVES = "exec /bin/sleep 100\n"
STUBS = {
    "srun": _NOTE + _SRUN,
    "sbatch": _NOTE,
    "scontrol": 'if [[ "$1 $2" == "show hostnames" ]]; then\n  printf "node%s\\n" 0 1\n  exit\nfi\n' + _NOTE,
    "scancel": _NOTE + 'kill -TERM $(cat "$NOTES/pids")\n',
    "torchrun": _NOTE + 'while [[ $1 != -m ]]; do shift; done\nexec "${@:2}"\n',
    "stepverify": _NOTE + 'exit "${CODE:-0}"\n',
    "sampling": _NOTE + 'env >"$NOTES/env"\nexit "${CODE:-0}"\n',
    "ray": _NOTE + _LIVES,
    "vllm": _NOTE + _LIVES,
    "python": 'grep -c "^ray " "$NOTES/log"\n',  # nodes that have joined
    "curl": 'grep -q "^vllm " "$NOTES/log"\n',  # healthy
    "sleep": "exec /bin/sleep 0.02\n",
}


def directives(script: Path) -> dict[str, str]:
    """Options of the lines of ``#SBATCH``, those that sbatch reads: before the first command."""
    head = script.read_text().split("\nset -euo pipefail\n")[0]
    found = [line.removeprefix("#SBATCH ").removeprefix("--") for line in head.splitlines() if "#SBATCH" in line[:7]]
    return {key: value for key, _, value in (option.partition("=") for option in found)}


class Dry:
    """Run scripts and commands in a folder with stubs of all programs, an empty environment file and the recipes.

    Args:
        folder: for all of that; ``log`` in it has a line for each command, ``pids`` the processes that srun has started.
        real: programs of this environment, or of the machine, that are run themselves.
        stubs: bodies of stubs by name, in the place of those of :data:`STUBS`.
    """

    def __init__(self, folder: Path, real: Sequence[str] = (), **stubs: str) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        for name, body in ((name, body) for name, body in (STUBS | stubs).items() if name not in real):
            (self.bin / name).write_text(f"#!/usr/bin/env bash\n{body}")
            (self.bin / name).chmod(0o755)
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / ".venv" / "bin" / "activate").touch()
        (folder / "lit_configs").symlink_to(ROOT / "lit_configs")
        (folder / "log").touch()

    def start(self, command: list[str], **environment: str) -> subprocess.Popen:
        """Start a command with no other variables than those of the stubs and these."""
        path = f"{self.bin}:{Path(sys.executable).parent}:/usr/bin:/bin"
        known = {
            "PATH": path, "NOTES": str(self.folder), "HOME": os.environ["HOME"], "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip
        return subprocess.Popen(
            command, cwd=self.folder, env=known | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def submit(self, name: str, changes: Mapping[str, str] | None = None, **environment: str) -> subprocess.Popen:
        """Start a script as a job, with the variables that SLURM sets for the lines of ``#SBATCH`` in it.

        ``changes`` are values of the variables at its top, in the place of those it is shipped with.
        """
        options = directives(FOLDER / name)
        text = (FOLDER / name).read_text()
        for key, value in (changes or {}).items():
            text, count = re.subn(rf"^{key}=(\([^)]*\)|\S+)", f"{key}={value}", text, flags=re.MULTILINE)
            assert count == 1, key
        (self.folder / name).write_text(text)
        known = {"SLURM_JOB_ID": "12345", "SLURM_JOB_NAME": options["job-name"], "SLURM_JOB_NODELIST": "node[0-1]"}
        for key, variable in (
            ("nodes", "NNODES"), ("ntasks-per-node", "NTASKS_PER_NODE"), ("cpus-per-task", "CPUS_PER_TASK"),
            ("gpus-per-node", "GPUS_ON_NODE"),
        ):  # fmt: skip
            known |= {f"SLURM_{variable}": options[key]} if key in options else {}
        return self.start(["bash", name], **known | environment)

    def log(self) -> list[list[str]]:
        """The commands that were run, in order."""
        return [shlex.split(line) for line in (self.folder / "log").read_text().splitlines()]

    def environment(self) -> dict[str, str]:
        """Variables of the last ``sampling``."""
        return dict(line.partition("=")[::2] for line in (self.folder / "env").read_text().splitlines())

    def alive(self) -> list[int]:
        """Processes that srun has started, and that are still there."""
        return [pid for pid in map(int, (self.folder / "pids").read_text().split()) if Path(f"/proc/{pid}").exists()]


def ended(job: subprocess.Popen, code: int = 0) -> str:
    """Wait for a job, and return what it wrote on stderr."""
    _, error = job.communicate(timeout=200)
    assert job.returncode == code, error
    return error


def configs(log: list[list[str]], capsys: pytest.CaptureFixture) -> list[dict]:
    """Have the real programs parse their commands of a log, and those of its pipelines; the configurations of all."""
    commands = []
    with chdir(ROOT):
        for words in log:
            if words[:2] == ["sampling", "pipeline"]:
                commands += [command for _, command in pipeline.plan(words[2:])[0]]
            elif words[0] in ("sampling", "stepverify"):
                commands.append(words)
        return [yaml.safe_load(parse(command, capsys)) for command in commands]
