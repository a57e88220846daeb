"""Which folders a fit claims: by its checkpoints, its data and its launcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepverify.callbacks.run_folder import claim, comparable, inputs_of
from stepverify.manifest import write_manifest
from stepverify.records import InputError


def test_the_folder_of_a_stage_is_not_the_folder_of_a_run(tmp_path: Path):
    from sampling.runtime.store import Store
    from stepverify.records import Problem

    with Store(tmp_path, Problem, stage="generate", config={}, inputs={}) as store:
        store.write([Problem(id="p", problem="?")])
    with pytest.raises(InputError, match="is the output of sampling generate"):
        claimed(tmp_path)


def claimed(
    root: Path, ckpt_path: str | None = None, *, overwrite: bool = False, seed: int = 0, data: dict | None = None
) -> list[str]:
    plain = {"seed_everything": seed, "model": {}, "data": data or {}, "trainer": {"default_root_dir": str(root)}}
    removed = claim(
        root, root / "export", plain, inputs_of(plain), ckpt_path=ckpt_path, overwrite=overwrite, fast_dev_run=False
    )
    return [path.name for path in removed]


def test_a_job_that_slurm_requeues_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lightning takes ``hpc_ckpt_1.ckpt`` of itself, but on SLURM alone."""
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(b"")
    with pytest.raises(InputError, match="holds an earlier run; resume with --ckpt_path last"):
        claimed(tmp_path)
    assert claimed(tmp_path, overwrite=True) == ["hpc_ckpt_1.ckpt"]
    for name, value in (("SLURM_NTASKS", "1"), ("SLURM_JOB_NAME", "fit"), ("SLURM_JOB_ID", "7")):
        monkeypatch.setenv(name, value)
    assert claimed(tmp_path) == []
    with pytest.raises(InputError, match="removes the run that SLURM's hpc_ckpt resumes"):
        claimed(tmp_path, overwrite=True)


def test_a_checkpoint_is_gone_on_with_in_its_own_folder_only(tmp_path: Path):
    checkpoint = tmp_path / "checkpoints" / "step=2.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"")
    assert claimed(tmp_path, str(checkpoint)) == []
    with pytest.raises(InputError, match="overwrite: true removes the run that this ckpt_path resumes"):
        claimed(tmp_path, str(checkpoint), overwrite=True)
    with pytest.raises(InputError, match="holds an earlier run"):
        claimed(tmp_path, "/elsewhere/step=2.ckpt")
    assert claimed(tmp_path / "new", str(checkpoint)) == []
    assert claimed(tmp_path, overwrite=True) == ["step=2.ckpt"]


def test_changed_data_is_not_another_runs_data(tmp_path: Path):
    """Under the same path; nested readers and lists of files too. What is not on this disk is not compared."""
    train, problems = tmp_path / "train.jsonl", tmp_path / "problems.jsonl"
    data = {
        "train": {"init_args": {"path": [str(train), "a/hub-id"], "problems": [{"init_args": {"path": "gone"}}]}},
        "lm": {"init_args": {"reader": {"init_args": {"path": str(problems)}}}},
        "validation": None,
        "test": {"init_args": {"path": str(tmp_path / "test.jsonl")}},
    }
    for path in (train, problems, tmp_path / "test.jsonl"):
        path.write_text("{}\n")
    root = tmp_path / "run"
    (root / "checkpoints").mkdir(parents=True)
    (root / "checkpoints" / "step=2.ckpt").write_bytes(b"")
    plain = {"seed_everything": 0, "model": {}, "data": data, "trainer": {}}
    inputs = inputs_of(plain)
    keys = ["data.train.init_args.path[0]", "data.lm.init_args.reader.init_args.path"]
    assert list(inputs) == keys
    write_manifest(root, {"stage": "fit", "config": comparable(plain), "inputs": inputs})
    (tmp_path / "test.jsonl").write_text("{}{}\n")
    assert claimed(root, "last", data=data) == []
    for path, key in zip((train, problems), keys, strict=True):
        path.write_text("{} \n")
        with pytest.raises(InputError) as refused:
            claimed(root, "last", data=data)
        assert str(refused.value).startswith(f"{root}: {path} ({key}) has changed since the run began; start over with")
        path.unlink()
        assert claimed(root, "last", data=data) == []
