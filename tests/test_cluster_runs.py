"""Scripts of ``lit_configs/cluster`` with the real programs; a stub of srun starts them on this machine."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("torch")

from stepverify.callbacks import files
from stepverify.jsonl import read_records
from stepverify.records import Solution
from tests.helpers.cluster import Dry, ended
from tests.helpers.runs import config

PROGRAMS = ("sampling", "stepverify", "torchrun", "ray", "python", "sleep")
# As of --kill-on-bad-exit: the first process that fails has the others killed.
TWO_TASKS = """
while [[ $1 == --* ]]; do shift; done
export SLURM_NTASKS=2 SLURM_NODEID=0
for rank in 0 1; do
  SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" &
  pids+=($!)
done
printf "%s\\n" "${pids[@]}" >"$NOTES/pids"
wait -n || { code=$?; kill -KILL "${pids[@]}"; wait; exit "$code"; }
wait
"""


def solutions(folder: Path) -> dict[str, Solution]:
    return {solution.id: solution for solution in read_records(folder, Solution)}


def write_samples(path: Path, engine: dict) -> None:
    """Write the configuration of a stage that samples two solutions of each of six problems."""
    problems = {"class_path": "Synthetic", "init_args": {"split": "test", "num_problems": 6}}
    sampling = {"temperature": 1.0, "max_tokens": 8}
    stage = {"engine": engine, "problems": problems, "num_samples": 2, "sampling": sampling, "output": path.stem}
    path.write_text(yaml.safe_dump(stage))


def run(dry: Dry, *words: str) -> None:
    ended(dry.start(["sampling", "generate", *words]))


@pytest.mark.slow
def test_a_job_array_of_two_and_its_merging(tmp_path, tiny_model_dir):
    """Counted from 0. While the second shard is missing, it is named and nothing is merged."""
    dry = Dry(tmp_path, real=PROGRAMS)
    engine = {"class_path": "TransformersEngine", "init_args": {"model": str(tiny_model_dir)}}
    write_samples(tmp_path / "merged.yaml", engine)
    changes = {"config": "merged.yaml", "jobs": "jobs", "shards": "2"}
    ended(dry.submit("sample_array.sh", changes, SLURM_ARRAY_TASK_ID="0"))
    assert "missing shards: 2/2; " in ended(dry.submit("sample_array.sh", changes), 2)
    assert not (tmp_path / "merged").exists()
    ended(dry.submit("sample_array.sh", changes, SLURM_ARRAY_TASK_ID="1"))
    ended(dry.submit("sample_array.sh", changes))
    run(dry, "--config", "merged.yaml", "--output", "single")
    assert solutions(tmp_path / "merged") == solutions(tmp_path / "single")
    assert len(solutions(tmp_path / "single")) == 12


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fit_srun.sh", "fit_torchrun.sh"])
def test_two_processes_of_a_fit_save_near_the_time_limit_and_go_on(name, tmp_path):
    """Told by SLURM they save the running step, however long that takes; the job is queued again, and goes on."""
    root = tmp_path / "run"
    slow = {"class_path": "tests.helpers.interruptions.SlowWriter", "init_args": {"seconds": 1.0}}
    file = config("GeneratorModule", root, trainer__max_epochs=10_000, trainer__callbacks=[slow], trainer__logger=False)
    srun = {"srun": TWO_TASKS} if name == "fit_srun.sh" else {}
    dry = Dry(tmp_path / "job", real=PROGRAMS, scontrol='echo localhost\necho $* >>"$NOTES/said"\n', **srun)
    changes = {"fit": f"(--config {file} --config lit_configs/overlays/ddp.yaml)"}
    size = {"SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "2", "SLURM_GPUS_ON_NODE": "2"}
    steps = []
    for _ in range(2):
        before = files.find(root)[:1]
        job = dry.submit(name, changes, **size, PYTHONPATH=str(Path(__file__).parents[1]))
        while files.find(root)[:1] == before:
            assert job.poll() is None, job.communicate()[1]
            time.sleep(0.1)
        if name == "fit_srun.sh":
            for task in dry.alive():
                os.kill(task, signal.SIGTERM)
        else:
            job.send_signal(signal.SIGUSR1)
        error = ended(job, 143 if name == "fit_srun.sh" else 1)
        (tmp_path / "job" / "pids").unlink()
        assert error.count("; resume with --ckpt_path last") == 1
        newest = files.find(root)[0]
        steps.append(int(newest.stem.partition("=")[2]))
        assert f"after step {steps[-1]};" in error
        assert files.defect(newest) is None
    assert steps[0] < steps[1]
    said = (tmp_path / "job" / "said").read_text().splitlines()
    assert [line for line in said if not line.startswith("show")] == ["requeue 12345"] * 2


@pytest.mark.ray
def test_ray_on_two_nodes(tmp_path, tiny_model_dir):
    """Both are this machine. The stage has a replica on each, and nothing stays when it has ended."""
    dry = Dry(tmp_path, real=PROGRAMS, scontrol="hostname\nhostname\n")
    inner = {"class_path": "TransformersEngine", "init_args": {"model": str(tiny_model_dir)}}
    engine = {"class_path": "RayEngine", "init_args": {"engine": inner, "address": "auto"}}
    write_samples(tmp_path / "ray.yaml", engine)
    write_samples(tmp_path / "single.yaml", inner)
    changes = {"sample": "(sampling generate --config ray.yaml)"}
    job = dry.submit("sample_ray.sh", changes, SLURM_NNODES="2", SLURM_CPUS_PER_TASK="1", SLURM_GPUS_ON_NODE="0")
    assert "2 replicas" in ended(job)
    assert dry.alive() == []
    run(dry, "--config", "single.yaml")
    assert solutions(tmp_path / "ray") == solutions(tmp_path / "single")
