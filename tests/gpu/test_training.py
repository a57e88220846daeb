"""``stepverify fit``, ``validate`` and ``predict`` on the card, through the program. Budget: 110 s.

Configurations leave ``accelerator`` and ``devices`` out: the program takes the card by itself.
"""

from __future__ import annotations

import math
import os

import pytest
import torch

from stepverify.callbacks import files
from stepverify.trainer import run
from tests.gpu import sampling_side
from tests.gpu.work import (
    KINDS,
    Waits,
    bf16_bound,
    config,
    distance,
    ended,
    losses,
    solutions,
    started,
    weights,
    write_solutions,
)

pytestmark = pytest.mark.gpu


@pytest.mark.seconds(90)
def test_the_card_is_taken_without_being_asked_for(trained, device):
    for kind in KINDS:
        _, cli = trained[kind]
        assert cli.trainer.strategy.root_device.type == device
        assert cli.trainer.world_size == 1
        assert cli.trainer.train_dataloader.pin_memory == (device == "cuda")


@pytest.mark.cuda("a CPU is never waited for")
def test_how_often_a_fit_waits_for_the_card(model, data, tmp_path, record):
    """Once a step, for the answer whether its loss and gradient are finite; twice where Lightning asks something too."""
    file = config(
        "ProcessRewardModel", tmp_path / "run", model, data, "cuda",
        trainer={"logger": False, "log_every_n_steps": 100, "precision": "bf16-mixed", "enable_checkpointing": False,
                 "callbacks": [{"class_path": "tests.gpu.work.Waits"}], "max_epochs": 3},
        data={"validation": None},
    )  # fmt: skip
    cli = run(["fit", "--config", file])
    (waits,) = [c for c in cli.trainer.callbacks if isinstance(c, Waits)]
    record("waits for the card in a step", **waits.per_step())
    assert waits.per_step()["most"] <= 2, waits.places


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_a_cpu(kind, trained, model, data, tmp_path, device):
    """Eight steps in float32: the first loss to 1e-5, and all to 1 %: differences grow as weights move apart."""
    root, _ = trained[kind]
    found = losses(root)
    run(["fit", "--config", config(kind, tmp_path / "cpu", model, data, "cpu", init=KINDS[kind], seen=True)])
    wanted = losses(tmp_path / "cpu")
    assert len(found) == len(wanted) == 8
    assert all(map(math.isfinite, found))
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    assert found == pytest.approx(wanted, rel=1e-2)
    assert found[4:] != found[:4]  # the second epoch reads the same batches in another order, by other weights


@pytest.mark.parametrize("kind", ["OutcomeVerifier", "ProcessRewardModel"])
def test_an_export_gives_the_trained_scores_on_card_and_cpu(kind, trained, device, record):
    """The trained module against its export, loaded on the card and on a CPU, in float32: probabilities to 1e-4.

    The export's own check has compared them already; this one goes by the scorer, as users do.
    """
    root, cli = trained[kind]
    some = solutions()
    wanted = module_scores(cli.model, some)
    assert len({round(v, 3) for values in wanted for v in values}) > 5
    for where in dict.fromkeys((device, "cpu")):
        found = sampling_side.scores(str(root / "export"), some, where)
        gaps = [abs(a - b) for one, other in zip(found, wanted, strict=True) for a, b in zip(one, other, strict=True)]
        record(f"export of {kind} on {where}", largest_difference=max(gaps))
        assert max(gaps) < 1e-4


def module_scores(module, some):
    """Values of a trained module where it lies now, each solution alone; of an outcome verifier the last one."""
    from stepverify.data.batch import collate

    module.model.eval()
    found = []
    for solution in some:
        batch = collate([module.encode(solution, labelled=False)]).to(next(module.model.parameters()).device)
        with torch.inference_mode():
            found += batch.split(module.model.score(batch))
    return found


@pytest.mark.parametrize("kind", ["OutcomeVerifier", "ProcessRewardModel"])
def test_validate_gives_the_metrics_of_a_cpu(kind, trained, model, data, device, tmp_path):
    """Every metric of the last checkpoint, to 1e-4; AUROC and counts are exact unless two values lie nearer than that."""
    root, _ = trained[kind]
    found = []
    for where in dict.fromkeys((device, "cpu")):
        file = config(
            kind, tmp_path / where, model, data, where, init=KINDS[kind], trainer={"default_root_dir": str(root)}
        )
        cli = run(["validate", "--config", file, "--ckpt_path", "last", "--trainer.logger", "false"])
        assert cli.trainer.strategy.root_device.type == where
        found.append({name: value.item() for name, value in cli.trainer.callback_metrics.items()})
    one, other = found[0], found[-1]
    assert one.keys() == other.keys()
    assert len(one) >= 5
    for name, value in one.items():
        assert value == pytest.approx(other[name], abs=1e-4, nan_ok=True), name


def test_predict_gives_the_exports_scores(trained, data, device, tmp_path):
    """``stepverify predict`` on the card, against the scorer on a CPU: every solution once, to 1e-4."""
    root, _ = trained["ProcessRewardModel"]
    writer = {
        "class_path": "stepverify.callbacks.ScoreWriter",
        "init_args": {"folder": str(tmp_path / "a"), "name": "p"},
    }
    reader = {"class_path": "stepverify.readers.Solutions", "init_args": {"path": data}}
    file = config(
        "ProcessRewardModel", tmp_path / "p", str(root / "export"), data, device, init={"template": None},
        trainer={"callbacks": [writer], "logger": False},
        data={"train": None, "validation": None, "predict": reader, "eval_pack_tokens": 512},
    )  # fmt: skip
    run(["predict", "--config", file])
    from stepverify.jsonl import read_records
    from stepverify.records import Solution

    found = {s.id: s.scores["p"] for s in read_records(tmp_path / "a", Solution)}
    some = solutions()
    wanted = sampling_side.scores(str(root / "export"), some, "cpu")
    assert len(found) == len(some)
    for solution, values in zip(some, wanted, strict=True):
        assert found[solution.id] == pytest.approx(values, abs=1e-4)


@pytest.mark.seconds(90)
def test_a_resumed_run_is_the_uninterrupted_one(model, data, device, tmp_path, record):
    """Stopped after 5 of 8 steps and continued, with dropout: the weights of a run in one piece, bit by bit.

    ``deterministic: true`` has torch choose kernels that add in one order. Where two equal runs differ all the same, they
    are the measure: ten times their difference. The report says which it was.
    """
    made = {}
    for name in ("whole", "again", "parts"):
        file = config(
            "ProcessRewardModel", tmp_path / name, model, data, device, backbone={"dropout": 0.1},
            trainer={"deterministic": True},
        )  # fmt: skip
        if name == "parts":
            run(["fit", "--config", file, "--trainer.max_steps", "5"])
            assert files.last(tmp_path / name).resolve().name == "step=5.ckpt"
            run(["fit", "--config", file, "--ckpt_path", "last"])
        else:
            run(["fit", "--config", file])
        made[name] = torch.cat([w.double().flatten() for _, w in sorted(weights(tmp_path / name).items())])
    noise, off = distance(made["again"], made["whole"]), distance(made["parts"], made["whole"])
    record("resume", difference=off, of_two_equal_runs=noise)
    assert off <= 10 * noise


@pytest.mark.seconds(60)
@pytest.mark.cuda("the default of a CPU is float32")
def test_bfloat16_is_the_default_on_a_card_and_said(model, data, tmp_path):
    """Without ``precision``: bf16-mixed, in a line of the log; weights stay float32."""
    trainer = {"precision": None, "max_steps": 2}
    process = started(
        "fit", "--config", config("ProcessRewardModel", tmp_path / "run", model, data, "cuda", trainer=trainer)
    )
    code, said = ended(process, 50)
    assert code == 0, said[-2000:]
    assert "bf16-mixed" in said
    assert {w.dtype for w in weights(tmp_path / "run").values()} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.seconds(60)
def test_bf16_mixed_trains_and_exports(kind, trained, model, data, device, tmp_path):
    """The export's own comparison passes in bfloat16, and losses are near those of float32.

    The first one to the bound of one step. AdamW then moves each weight by its learning rate, also where rounding decides
    the sign of the gradient, so weights move apart: 25 % for the others.
    """
    file = config(
        kind, tmp_path / "run", model, data, device, init=KINDS[kind], seen=True, trainer={"precision": "bf16-mixed"}
    )
    run(["fit", "--config", file])
    found, wanted = losses(tmp_path / "run"), losses(trained[kind][0])
    assert found[0] == pytest.approx(wanted[0], rel=bf16_bound())
    assert found == pytest.approx(wanted, rel=0.25)
    assert found != wanted
    assert (tmp_path / "run" / "export" / "model.safetensors").is_file()


OUT_OF_MEMORY = """
import sys, torch
torch.cuda.set_per_process_memory_fraction(float(sys.argv[1]))
from stepverify.cli import main
main(sys.argv[2:])
"""


@pytest.mark.seconds(90)
@pytest.mark.cuda("a CPU's memory has no such limit")
def test_out_of_memory_names_the_key_to_lower(model, tmp_path):
    """2,048 solutions in one pack, 96 MiB for the process: exit code 2, and one line that names data.pack_tokens."""
    import subprocess
    import sys

    from tests.gpu.work import ROOT

    data = write_solutions(tmp_path / "data", 256, 8)
    file = config("ProcessRewardModel", tmp_path / "run", model, data, "cuda", data={"pack_tokens": 100_000})
    share = 96 * 2**20 / torch.cuda.get_device_properties(0).total_memory
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(share), "fit", "--config", file], cwd=ROOT, capture_output=True,
        text=True, timeout=80, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 2, f"exit code {done.returncode}: {done.stderr[-1500:]}"
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("stepverify fit: ")]
    assert "data.pack_tokens" in line
    assert "Traceback" not in done.stderr


@pytest.mark.seconds(120)
def test_ddp_and_fsdp2_of_one_process_are_a_single_device(model, data, device, tmp_path, record):
    """nccl (gloo on a CPU), one process each, all three at the same time: eight losses and the weights, 1e-5.

    With one process nothing is added up, so equal kernels give equal bits; FSDP2 gathers into other buffers.
    """
    strategies = {
        "single": None,
        "ddp": {"class_path": "lightning.pytorch.strategies.DDPStrategy"},
        "fsdp2": {
            "class_path": "lightning.pytorch.strategies.ModelParallelStrategy",
            "init_args": {"data_parallel_size": 1, "tensor_parallel_size": 1},
        },
    }
    processes = {}
    for name, strategy in strategies.items():
        trainer = {"devices": 1} | ({"strategy": strategy} if strategy else {})
        file = config("ProcessRewardModel", tmp_path / name, model, data, device, trainer=trainer, seen=True)
        processes[name] = started("fit", "--config", file)
    for name, process in processes.items():
        code, err = ended(process, 100)
        assert code == 0, f"{name}: {err[-2000:]}"
    wanted, whole = losses(tmp_path / "single"), weights(tmp_path / "single")
    assert len(wanted) == 8
    for name in ("ddp", "fsdp2"):
        found, own = losses(tmp_path / name), weights(tmp_path / name)
        assert own.keys() == whole.keys()
        off = max(distance(own[key], whole[key]) for key in whole)
        record(f"{name} against a single device", losses_equal=found == wanted, weights_off=off)
        assert found == pytest.approx(wanted, rel=1e-5)
        assert off < 1e-4
