"""Training that leaves the finite numbers ends there, with the last good checkpoint and without an export."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import lightning  # noqa: E402

from stepverify.callbacks import StopAtNonFinite, files  # noqa: E402
from stepverify.modules.rounding import check_steps  # noqa: E402
from stepverify.records import InputError  # noqa: E402
from tests.helpers.interruptions import every, fit  # noqa: E402
from tests.helpers.processes import stepverify  # noqa: E402
from tests.helpers.runs import config, weights  # noqa: E402


class Poison(lightning.Callback):
    """Puts a number into one weight before a step, counted from 1, or into its gradient, on one rank."""

    def __init__(self, step: int, of: str = "weight", value: float = float("nan"), rank: int = 0) -> None:
        self.step, self.of, self.value, self.rank = step, of, value, rank

    def strike(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, of: str) -> None:
        if (trainer.global_step + 1, of, trainer.global_rank) == (self.step, self.of, self.rank):
            weight = next(p for name, p in pl_module.named_parameters() if "norm" in name)
            (weight if of != "gradient" else weight.grad).data.fill_(self.value)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.strike(trainer, pl_module, "weight")

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        self.strike(trainer, pl_module, "gradient")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step and self.of == "update":
            next(pl_module.parameters()).data.fill_(self.value)


def poison(step: int, **more: Any) -> dict[str, Any]:
    return {"class_path": "tests.stepverify.callbacks.test_finite.Poison", "init_args": {"step": step} | more}


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ("weight", r"loss nan, norm of the gradient nan; the batch's solutions: "),
        ("gradient", r"loss \d\.\d+, norm of the gradient nan; the batch's solutions: "),
    ],
)
def test_training_stops_before_what_is_not_finite(of: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    """At step 4 of 8, a batch of 16: named are the step, the loss and its solutions. Resumed without it, training ends."""
    root = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        fit(root, every(1), poison(4, of=of), trainer__logger=False)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    line = re.search(rf"^stepverify fit: stopped before step 4: {said}(.+); weights and checkpoints .*\n", error, re.M)
    assert line, error
    assert line[1].count("synthetic") == 4
    assert "Traceback" not in error
    assert files.last(root) == root / "checkpoints" / "step=3.ckpt"
    saved = torch.load(files.last(root), weights_only=True)["state_dict"]
    assert all(weight.isfinite().all() for weight in saved.values())
    assert not (root / "export").exists()
    if of == "gradient":
        fit(root, every(1), trainer__logger=False)
        assert all(weight.isfinite().all() for weight in weights(root).values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, capsys: pytest.CaptureFixture):
    """After step 4 they are infinite: neither a checkpoint takes the place of step 3's nor is there an export."""
    root = tmp_path / "run"
    with pytest.raises(SystemExit):
        fit(root, every(1, keep=1), poison(4, of="update", value=".inf"), trainer__logger=False)
    assert "step 4: weights are not finite" in capsys.readouterr().err
    assert [path.name for path in files.find(root)] == ["step=3.ckpt"]


class Flood(lightning.Callback):
    """Makes every weight NaN once training has ended."""

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        for parameter in pl_module.parameters():
            parameter.data.fill_(float("nan"))


def test_weights_that_are_not_finite_are_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        fit(
            tmp_path / "run",
            {"class_path": "tests.stepverify.callbacks.test_finite.Flood"},
            trainer__max_epochs=1,
            trainer__logger=False,
        )
    assert stopped.value.code == 2
    said = re.search(r"(\d+) of (\d+) weights are not finite \(NaN or infinite\), ", capsys.readouterr().err)
    assert said
    assert said[1] == said[2]
    assert not (tmp_path / "run" / "export").exists()
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_infinite_gradients_of_scaled_losses_are_no_reason():
    """The scaler skips that step; a loss that is not finite is one there too."""
    module = torch.nn.Linear(2, 1)
    module.weight.grad = torch.full((1, 2), torch.inf)
    batch = SimpleNamespace(records=[SimpleNamespace(id="p#1")])
    trainer: Any = SimpleNamespace(
        world_size=1, global_step=4, log_every_n_steps=3, callback_metrics={"train/loss": torch.tensor(torch.nan)},
        strategy=SimpleNamespace(root_device=torch.device("cpu")), precision_plugin=SimpleNamespace(scaler=object()),
    )  # fmt: skip

    def step(loss: float) -> None:
        callback = StopAtNonFinite()
        callback.on_train_batch_start(trainer, module, batch, 0)
        callback.on_before_backward(trainer, module, torch.tensor(loss))
        callback.on_before_optimizer_step(trainer, module, None)

    step(1.0)
    with pytest.raises(
        InputError, match="before step 5: loss nan, norm of the gradient inf; the batch's solutions: p#1;"
    ):
        step(torch.nan)
    trainer.precision_plugin.scaler = None
    with pytest.raises(InputError, match="norm of the gradient inf"):
        step(1.0)


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["ddp", "fsdp2"])
def test_all_ranks_stop_where_one_loses_its_loss(overlay: str, tmp_path: Path):
    """Rank 1 alone: rank 0 names the 8 solutions of the other's batch, in one line, and nobody waits."""
    root = tmp_path / "run"
    file = config("GeneratorModule", root, data__batch_size=8, trainer__callbacks=[every(1), poison(3, rank=1)])
    done = stepverify(
        "fit", "--config", file, "--config", f"lit_configs/overlays/{overlay}.yaml", "--trainer.accelerator", "cpu",
        "--trainer.devices", "2",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-2000:]
    (line,) = re.findall(r"^stepverify fit: .*", done.stderr, re.M)
    assert line.startswith("stepverify fit: stopped before step 3: loss nan")
    assert line.count("synthetic") == 8
    assert files.last(root) == root / "checkpoints" / "step=2.ckpt"
    assert not (root / "export").exists()


@pytest.mark.parametrize(
    ("dtype", "lr", "share"),
    [
        (torch.bfloat16, 1e-5, 0.16),
        (torch.bfloat16, 1e-4, 0.88),
        (torch.bfloat16, 1e-3, 1.0),
        (torch.float32, 1e-5, 1.0),
    ],
)
def test_weights_that_a_step_rounds_back(dtype, lr, share, recwarn: pytest.WarningsRecorder):
    """Counted beforehand: as many as AdamW's first step moves."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter((0.02 * torch.randn(100, 1000)).to(dtype))
    before, optimizer = weight.detach().clone(), torch.optim.AdamW([weight], lr=lr, weight_decay=0.0)
    trainer: Any = SimpleNamespace(world_size=1)
    if share < 0.5:
        with pytest.raises(
            InputError, match=r"in bfloat16: a step of the learning rate 1e-05 moves 16% of them.*bf16-mixed"
        ):
            check_steps(optimizer, trainer)
    else:
        check_steps(optimizer, trainer)
    assert bool(len(recwarn)) == (0.5 < share < 0.99)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    assert (weight != before).float().mean().item() == pytest.approx(share, abs=0.01)


def test_bf16_true_at_the_default_learning_rate_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    slow = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-5}}
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path / "run", trainer__precision="bf16-true", model__init_args__optimizer=slow, trainer__logger=False)
    assert stopped.value.code == 2
    assert "trainer.precision: bf16-mixed, or an optimizer that keeps float32 weights" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
