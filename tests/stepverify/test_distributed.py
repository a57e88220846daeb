"""DDP and FSDP2 on two CPU processes, by the shipped overlays: one and the same model comes out."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from stepverify.records import StepLabel
from tests.helpers.devices import IDS, joint, seen
from tests.helpers.fits import thirteen
from tests.helpers.implicit import ONE_STEP, PARTS, implicit, write_pairs
from tests.helpers.interruptions import every, interrupt
from tests.helpers.processes import stepverify
from tests.helpers.ranks import run_ranks
from tests.helpers.runs import BACKBONE, SHORT_TEXT, config, scalars, weights
from tests.helpers.sample_accuracy import accuracy, sampled


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of three runs of two ranks each: ``ddp`` and ``fsdp2`` of a generator, ``uneven`` of 13 solutions."""
    folder = tmp_path_factory.mktemp("ranks")
    best = {
        "class_path": "stepverify.callbacks.Checkpoints",
        "init_args": {"monitor": "val/sample_accuracy", "mode": "max"},
    }
    (folder / "best.yaml").write_text(
        yaml.safe_dump({
            "trainer": {"callbacks": [accuracy(batch_size=5), best, SHORT_TEXT], "val_check_interval": 3},
            "model": {"init_args": {"backbone": {"overrides": BACKBONE["overrides"]}}},
        })
    )  # fmt: skip
    commands = [
        [
            "fit", "--config", "lit_configs/quickstart/01_generator.yaml", "--config", f"lit_configs/overlays/{overlay}.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", "2",
            "--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1", "--trainer.default_root_dir", str(folder / overlay),
            "--data.train.init_args.num_problems", "32", "--data.batch_size", "4", "--data.validation.init_args.num_problems", "9",
            "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
            "--config", str(folder / "best.yaml"),
        ]
        for overlay in ("ddp", "fsdp2")
    ]  # fmt: skip
    uneven = ["fit", "--config", joint(folder / "uneven"), "--trainer.use_distributed_sampler", "true"]
    for one in run_ranks(2, *commands, [*uneven, "--trainer.devices", "2"]):
        assert one.returncode == 0, one.output[-2000:]
    return folder


@pytest.mark.slow
def test_all_processes_stay_until_a_checkpoint_is_written(tmp_path: Path):
    """After SIGTERM rank 0 writes for 2 seconds; like srun --kill-on-bad-exit, the launcher kills it when rank 1 ends."""
    slow = {"class_path": "tests.helpers.interruptions.SlowWriter", "init_args": {"seconds": 2.0}}
    term = interrupt("on_before_optimizer_step", 3, rank=1)
    file = config("GeneratorModule", tmp_path / "run", trainer__callbacks=[slow, term], trainer__logger=False)
    words = ["fit", "--config", file, "--config", "lit_configs/overlays/ddp.yaml", "--trainer.devices", "2"]
    (ended,) = run_ranks(2, words)
    assert ended.returncode == 143, ended.output[-2000:]
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").resolve().name == "step=3.ckpt"


def test_ddp_equals_fsdp2(two_ranks: Path):
    """The same batches on the same ranks, the same updates: exported weights agree to 1e-6.

    They are those of step 3 of 4, the only one that was validated: 11 problems sampled by both ranks, each once, in two batches and in one.
    """
    for root in (two_ranks / "ddp", two_ranks / "fsdp2"):
        assert {p.name: p.resolve().name for p in (root / "checkpoints").glob("*t.ckpt")} == {
            "best.ckpt": "step=3.ckpt",
            "last.ckpt": "step=4.ckpt",
        }
        card, solutions = (root / "export" / "README.md").read_text(), sampled(root / "export")
        assert 0 < sum(s.predicted is None for s in solutions) < 11
        assert "These weights are of step 3, with " in card
        for name, count in (
            ("accuracy", sum(bool(s.correct) for s in solutions)),
            ("unfinished", sum(s.predicted is None for s in solutions)),
        ):
            assert f"| sample_{name} | {count / 11:.4g} |" in card
    ddp, fsdp2 = (weights(two_ranks / overlay) for overlay in ("ddp", "fsdp2"))
    assert ddp.keys() == fsdp2.keys()
    assert max((ddp[k] - fsdp2[k]).abs().max().item() for k in ddp) < 1e-6


@pytest.mark.slow
def test_pairs_on_two_devices_are_those_of_one(one_layer_dir: Path, tmp_path: Path):
    """One step of an implicit reward model: the reference's parts of both ranks, and pairs of one pack or of several."""
    from stepverify.cli import main

    data = write_pairs(tmp_path / "pairs")
    commands = [
        ["fit", "--config", implicit(tmp_path / overlay, data, one_layer_dir, **ONE_STEP | PARTS),
         "--config", f"lit_configs/overlays/{overlay}.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", "2"]
        for overlay in ("ddp", "fsdp2")
    ]  # fmt: skip
    for one in run_ranks(2, *commands):
        assert one.returncode == 0, one.output[-2000:]
        assert f"fit: 16 solutions have log-probabilities under the reference {one_layer_dir}; kept in" in one.output
    main(["fit", "--config", implicit(tmp_path / "whole", data, one_layer_dir, **ONE_STEP)])
    expected = weights(tmp_path / "whole")
    for overlay in ("ddp", "fsdp2"):
        found = weights(tmp_path / overlay)
        assert max((found[k] - value).abs().max().item() for k, value in expected.items()) < 2e-6


def test_every_example_is_trained_once_an_epoch(two_ranks: Path):
    """13 solutions and the first two once more for the LM loss: in most steps no rank or only one has a LM positions.

    Other numbers of ranks, FSDP2, and ranks that Lightning starts are in test_devices.py.
    """
    lm = Counter(list(IDS)[:2])
    assert seen(two_ranks / "uneven", "train", 2) == {0: IDS + lm, 1: IDS + lm}
    assert seen(two_ranks / "uneven", "val", 2) == {0: IDS, 1: IDS}


@pytest.mark.slow
def test_metrics_of_two_processes_are_those_of_one(tmp_path: Path, tiny_model_dir: Path):
    """13 labelled solutions, packed, 7 and 6 of them on a process: every metric of steps and first errors, and both figures.

    Training changes nothing: its learning rate is 0.
    """
    from stepverify.cli import main
    from stepverify.jsonl import write_records

    def labels(i: int) -> dict:
        return {"step_labels": [StepLabel(rating=-1 if (i + j) % 3 == 0 else 1) for j in range(1 + i % 4)]}

    write_records(tmp_path / "data" / "part-00000.jsonl", thirteen(labels))
    seen = []
    for name, overlay in (
        ("one", []),
        ("two", ["--config", "lit_configs/overlays/ddp.yaml", "--trainer.devices", "2"]),
    ):
        file = config(
            "ProcessRewardModel", tmp_path / name, tmp_path / "data", trainer__max_steps=1, data__eval_pack_tokens=64,
            model__init_args__backbone={"path": str(tiny_model_dir)},
            model__init_args__optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}},
        )  # fmt: skip
        words = ["fit", "--config", file, *overlay, "--trainer.val_check_interval", "1", "--trainer.accelerator", "cpu"]
        if overlay:
            done = stepverify(*words)
            assert done.returncode == 0, done.stderr[-2000:]
        else:
            main(words)
        seen.append(scalars(tmp_path / name))
    names = [name for name in seen[0] if name.startswith("val/")]
    assert {"val/first_error_accuracy", "val/step_auroc", "val/error_f1", "val/loss"} <= {*names}
    for name in names:
        (_, one), (_, two) = seen[0][name][-1], seen[1][name][-1]
        assert one == pytest.approx(two, abs=1e-6), name
    assert {"calibration", "precision_recall_curve"} <= seen[1].keys()


@pytest.mark.slow
def test_calibration_of_two_processes_is_that_of_one(tmp_path: Path, tiny_model_dir: Path):
    """13 graded solutions, 7 and 6 of them on a process: gain and bias of all, in the exported head, by DDP and FSDP2.

    Training changes nothing: its learning rate is 0. Longer solutions are the correct ones, which the untrained value tells.
    """
    from stepverify.cli import main
    from stepverify.jsonl import write_records

    write_records(tmp_path / "data" / "part-00000.jsonl", thirteen(lambda i: {"correct": i % 4 > 1 or i == 4}))
    heads, errors = [], []
    for name in ("one", "ddp", "fsdp2"):
        file = config(
            "OutcomeVerifier", tmp_path / name, tmp_path / "data", trainer__max_epochs=1, data__eval_pack_tokens=64,
            model__init_args__backbone={"path": str(tiny_model_dir)},
            model__init_args__optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}},
        )  # fmt: skip
        words = ["fit", "--config", file, "--trainer.accelerator", "cpu"]
        if name == "one":
            main([*words, "--trainer.devices", "1"])
        else:
            done = stepverify(*words, "--config", f"lit_configs/overlays/{name}.yaml", "--trainer.devices", "2")
            assert done.returncode == 0, done.stderr[-2000:]
            assert "not calibrated" not in done.stderr
        heads.append({k: v for k, v in weights(tmp_path / name).items() if k.startswith("score.")})
        errors.append(scalars(tmp_path / name)["val/ece_calibrated"][-1][1])
    for head, error in zip(heads[1:], errors[1:], strict=True):
        assert error == pytest.approx(errors[0], abs=1e-6)
        for k in ("score.weight", "score.bias"):
            assert (head[k] - heads[0][k]).abs().max() <= 1e-4 * heads[0][k].abs().max()


@pytest.mark.slow
def test_torchrun_on_two_processes(tmp_path: Path):
    """The command of the README: two processes by torchrun, each with its share; one export and one set of logs."""
    launcher = ("torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0", "--standalone", "-m")
    done = stepverify(
        "fit", "--config", "lit_configs/quickstart/01_generator.yaml",
        "--config", "lit_configs/overlays/ddp.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", "2",
        "--trainer.max_steps", "2", "--trainer.default_root_dir", str(tmp_path / "run"),
        "--data.train.init_args.num_problems", "64", "--data.validation.init_args.num_problems", "8",
        "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", launcher=launcher,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Starting with 2 processes" in done.stderr
    assert (tmp_path / "run" / "export" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("overlay", "lora"), [("ddp", False), ("fsdp2", True)])
def test_stopped_by_one_rank_and_resumed(overlay: str, lora: bool, tmp_path: Path, tiny_model_dir: Path):
    """SIGTERM on rank 1 alone stops both after the same step; going on, from after a torn checkpoint, changes nothing."""
    from stepverify.callbacks import files

    def fit(root: Path, *callbacks: dict) -> CompletedProcess:
        backbone = {"path": str(tiny_model_dir)} | ({"lora": {"rank": 2, "dropout": 0.1}} if lora else {})
        file = config(
            "GeneratorModule", root, data__batch_size=8, model__init_args__backbone=backbone,
            trainer__callbacks=[*callbacks],
        )  # fmt: skip
        return stepverify(
            "fit", "--config", file, "--ckpt_path", "last", "--config", f"lit_configs/overlays/{overlay}.yaml",
            "--trainer.accelerator", "cpu", "--trainer.devices", "2",
        )  # fmt: skip

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert fit(whole).returncode == 0
    stopped = fit(parts, every(1), interrupt("on_before_optimizer_step", 3, rank=1))
    assert stopped.returncode == 143, stopped.stderr[-2000:]
    assert stopped.stderr.count("stopped by SIGTERM after step 3; resume with --ckpt_path last\n") == 1
    assert "Traceback" not in stopped.stderr
    assert not (parts / "export").exists()

    newest, older = (parts / "checkpoints" / f"step={n}.ckpt" for n in (3, 2))
    assert files.find(parts) == [newest, older]
    assert newest.is_dir() == (overlay == "fsdp2")
    torn = max(newest.rglob("*.distcp"), key=lambda file: file.stat().st_size) if newest.is_dir() else newest
    os.truncate(torn, torn.stat().st_size // 2)
    resumed = fit(parts, every(1))
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert resumed.stderr.count(f"{newest} is torn") == 1
    one, other = (scalars(root)["train/loss"] for root in (whole, parts))
    assert sorted(set(one)) == sorted(set(other))
    one, other = weights(whole), weights(parts)
    assert all(one[name].equal(other[name]) for name in one)
    if lora:
        from torch.distributed.checkpoint import FileSystemReader

        kept = FileSystemReader(parts / "checkpoints" / "last.ckpt").read_metadata().state_dict_metadata
        saved = [name for name in kept if name.startswith("state_dict.")]
        assert saved
        assert all("lora_" in name for name in saved)


@pytest.mark.slow
def test_two_processes_agree_on_what_to_do_with_a_run_that_is_there(tmp_path: Path):
    """Refused, left as it is, and started over, each once: rank 1 begins when rank 0 has."""

    def fit(*words: str, seed: int = 3) -> CompletedProcess:
        file = config("GeneratorModule", tmp_path / "run", trainer__max_epochs=1, seed_everything=seed)
        return stepverify(
            "fit", "--config", file, "--config", "lit_configs/overlays/ddp.yaml", "--trainer.accelerator", "cpu",
            "--trainer.devices", "2", *words,
        )  # fmt: skip

    first = fit()
    assert first.returncode == 0, first.stderr[-2000:]
    before = (tmp_path / "run" / "export" / "model.safetensors").read_bytes()
    refused = fit()
    assert (refused.returncode, refused.stderr.count("holds a finished run")) == (2, 1)
    again = fit("--ckpt_path", "last")
    assert (again.returncode, again.stdout.count("already finished")) == (0, 1)
    assert (tmp_path / "run" / "export" / "model.safetensors").read_bytes() == before
    over = fit("--overwrite", "true", seed=4)
    assert over.returncode == 0, over.stderr[-2000:]
    assert over.stderr.count("removed what an earlier fit left there (checkpoints, export, logs, manifest.json)") == 1
    assert (tmp_path / "run" / "export" / "model.safetensors").read_bytes() != before
    assert [step for step, _ in scalars(tmp_path / "run")["train/loss"]] == [0, 1]
