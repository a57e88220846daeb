"""Precision, gradient checkpointing and running out of memory: chosen, measured and said."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import yaml
from torch import nn

from stepverify import memory, trainer_settings
from stepverify.callbacks.memory import ChooseCheckpointing
from stepverify.cli import main
from stepverify.memory import HostMemory, SavedBytes, StepMemory, available_on_host, extrapolate, state_bytes
from stepverify.models import Backbone
from stepverify.records import InputError
from tests.helpers.fits import write_labelled
from tests.helpers.interruptions import every
from tests.helpers.processes import stepverify
from tests.helpers.runs import BACKBONE, BASE, config, scalars, weights

PEAK = StepMemory(resident=100, gradients=30, largest_gradient=8, states=20, activations=50)


def test_peak_of_a_step():
    """Activations of 50 go as gradients of 30 come, one of 8 at a time: 50 + 8 beside 100 + 20. Accumulated: 50 + 30."""
    assert PEAK.peak() == 178
    assert StepMemory(**vars_of(PEAK) | {"accumulated": True}).peak() == 200
    assert StepMemory(**vars_of(PEAK) | {"largest_gradient": 40}).peak() == 200
    assert StepMemory(**vars_of(PEAK) | {"gradients": 70}).peak() == 100 + 20 + 70 + 8


def vars_of(need: StepMemory) -> dict[str, Any]:
    return {name: getattr(need, name) for name in need.__dataclass_fields__}


@pytest.mark.parametrize(
    ("points", "tokens", "quadratic", "expected"),
    [
        ([(10, 130), (20, 230)], 80, False, 830),  # 30 + 10 n
        ([(10, 130), (20, 130)], 80, False, 130),
        ([(10, 150), (20, 400)], 80, True, 80 * (10 + 80 / 2)),  # 10 n + n² / 2
        ([(20, 200), (20, 200)], 80, False, 800),  # one solution cannot be divided
        ([(20, 200), (20, 200)], 80, True, 3200),
    ],
)  # fmt: skip
def test_extrapolation(points: list[tuple[int, int]], tokens: int, quadratic: bool, expected: float):
    assert extrapolate(points, tokens, quadratic=quadratic) == expected


@pytest.mark.parametrize(("kind", "options", "each"), [("AdamW", {}, 8), ("AdamW", {"amsgrad": True}, 12), ("SGD", {}, 0), ("SGD", {"momentum": 0.9}, 4)])  # fmt: skip
def test_states_that_an_optimizer_will_make(kind: str, options: dict[str, Any], each: int):
    """Of 2 × 3 and 5 parameters; after a step there are none left to make."""

    def factory(groups: Any) -> torch.optim.Optimizer:
        return getattr(torch.optim, kind)(groups, lr=0.1, **options)

    parameters = [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(5))]
    optimizer = factory([{"params": parameters}])
    assert state_bytes(optimizer, factory) == 11 * each
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    if each:
        assert state_bytes(optimizer, factory) == 0


def test_what_a_backward_pass_keeps_is_counted_once():
    """x of 4 × 8 for the weight's gradient, twice; relu's result of 4 × 16, also the next layer's input; no parameter."""
    first, second = nn.Linear(8, 16, bias=False), nn.Linear(16, 2, bias=False)
    x = torch.ones(4, 8)
    kept = SavedBytes()
    with kept:
        second(first(x).relu()) + first(x)[:, :2]
    assert kept.total == 4 * (4 * 8 + 4 * 16)


def test_memory_of_a_control_group(tmp_path: Path):
    """8,000 KiB on the host; 3 MB of a group less the 2 MB that it uses, of which 0.5 MB of files can go; less above it."""
    files = {
        "proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n",
        "proc/self/cgroup": "0::/jobs/one\n",
        "sys/fs/cgroup/jobs/one/memory.max": "3000000",
        "sys/fs/cgroup/jobs/one/memory.current": "2000000",
        "sys/fs/cgroup/jobs/one/memory.stat": "anon 7\ninactive_file 400000\nactive_file 100000\n",
        "sys/fs/cgroup/jobs/memory.max": "max",
    }
    found = []
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        found.append(available_on_host(tmp_path) if name != "sys/fs/cgroup/jobs/one/memory.max" else None)
    assert found == [8_192_000, 8_192_000, None, 1_000_000, 1_500_000, 1_500_000]
    (tmp_path / "sys/fs/cgroup/jobs/memory.max").write_text("2500000")
    (tmp_path / "sys/fs/cgroup/jobs/memory.current").write_text("2400000")
    assert available_on_host(tmp_path) == 100_000
    assert 0 < available_on_host() < 1 << 60


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What this part of the program logs."""
    lines: list[str] = []
    for module in ("stepverify.callbacks.memory", "stepverify.trainer_settings"):
        for name in ("rank_zero_info", "rank_zero_warn"):
            monkeypatch.setattr(f"{module}.{name}", lines.append)
    return lines


def limit_host(monkeypatch: pytest.MonkeyPatch, spare: int) -> None:
    monkeypatch.setattr(HostMemory, "in_use", lambda self: 0)
    monkeypatch.setattr(HostMemory, "capacity", lambda self: spare)


def fit(root: Path, data: Path, checkpointing: Any = "auto", *words: str, **changes: Any) -> None:
    # All three layers: they are recomputed one at a time, so that with a single one nothing would be saved.
    backbone = BACKBONE | {"overrides": {}, "attention_dropout": 0.1, "gradient_checkpointing": checkpointing}
    settings = {
        "model__init_args__backbone": backbone, "data__pack_tokens": 512, "trainer__max_epochs": 1,
        "data__validation": None, "trainer__callbacks": [every(1)],
    }  # fmt: skip
    main(["fit", "--config", config("ProcessRewardModel", root, data, **settings | changes), *words])


@pytest.mark.slow
def test_checkpointing_is_chosen_by_memory(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch):
    """Measured, recomputed in part, whole or not: the same losses and weights, bit for bit, dropout included. Then
    continued, where memory would suffice without; and in too little memory for a recomputed step, refused."""
    monkeypatch.setattr("stepverify.models.recompute._SHORT", 16)  # so small a model has no long sums
    data = write_labelled(tmp_path / "data")
    fit(tmp_path / "false", data, False)
    assert not said
    fit(tmp_path / "auto", data)
    assert "gradient checkpointing: off" in said[0]
    asked: list[StepMemory] = []
    plain = StepMemory.peak
    monkeypatch.setattr(StepMemory, "peak", lambda self: asked.append(self) or plain(self))
    limit_host(monkeypatch, 1 << 40)
    fit(tmp_path / "measured", data)
    whole = asked[0]
    limit_host(monkeypatch, round(whole.peak() / 0.91))
    fit(tmp_path / "pointwise", data)
    assert "gradient checkpointing: pointwise operations, with it" in said[-1]
    half = asked[-1]
    assert half.activations < 0.8 * whole.activations
    limit_host(monkeypatch, round(half.peak() / 0.91))
    fit(tmp_path / "on", data)
    assert "gradient checkpointing: on, with it" in said[-1]
    recomputed = asked[-1]
    assert recomputed.activations < 0.7 * whole.activations
    assert (recomputed.gradients, recomputed.states) == (whole.gradients, 2 * whole.gradients)
    runs = {
        name: (scalars(tmp_path / name)["train/loss"], weights(tmp_path / name))
        for name in ("false", "auto", "pointwise", "on")
    }
    for losses, trained in runs.values():
        assert losses == runs["false"][0]
        assert all(torch.equal(trained[name], weight) for name, weight in runs["false"][1].items())
    limit_host(monkeypatch, 1 << 40)
    fit(tmp_path / "pointwise", data, "auto", "--ckpt_path", "last", trainer__max_epochs=2)
    assert said[-1] == "gradient checkpointing: pointwise operations, as before in this run"
    limit_host(monkeypatch, recomputed.peak() - 1)
    with pytest.raises(SystemExit) as ended:
        fit(tmp_path / "none", data)
    assert ended.value.code == 2
    assert not (tmp_path / "none" / "checkpoints").exists()


class NoMemoryLeft(lightning.Callback):
    """Asks for a petabyte before the third step of one rank; or has so many levels of recomputation need too much there."""

    def __init__(self, rank: int = 0, too_large: int = 0) -> None:
        self.rank, self.too_large = rank, too_large

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if self.too_large and trainer.global_rank == self.rank:
            needs = iter([1 << 60] * (1 + self.too_large))  # said once, and compared
            StepMemory.peak = lambda self: next(needs, 0)  # type: ignore[method-assign]

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if not self.too_large and trainer.global_step == 2 and trainer.global_rank == self.rank:
            torch.empty(1 << 50)


def test_out_of_memory_names_keys_and_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture):
    """A real allocation that fails: one line, exit code 2; the run goes on from its checkpoint with another choice."""
    data, root = write_labelled(tmp_path / "data"), tmp_path / "run"
    strike = {"class_path": "tests.stepverify.test_memory.NoMemoryLeft"}
    with pytest.raises(SystemExit) as ended:
        fit(root, data, trainer__callbacks=[every(1), strike])
    assert ended.value.code == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("stepverify fit: ")]
    assert "out of memory in step 3 on cpu: " in line
    order = ["data.pack_tokens (512 now", "accumulate_grad_batches", "gradient_checkpointing: true", "bf16-mixed (32-true now)", "lora.yaml", "fsdp2.yaml", "step=2.ckpt is kept"]  # fmt: skip
    places = [line.find(text) for text in order]
    assert places == sorted(places)
    assert -1 not in places
    fit(root, data, True, "--ckpt_path", "last")
    assert [step for step, _ in scalars(root)["train/loss"]][:3] == [0, 1, 2]


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("MPS backend out of memory")]
)
def test_errors_of_no_memory(error: Exception):
    assert memory.is_out_of_memory(error)
    assert not memory.is_out_of_memory(InputError("out of memory"))
    assert not memory.is_out_of_memory(RuntimeError("shape"))


@pytest.mark.parametrize(
    ("cards", "accelerator", "dtype", "precision"),
    [
        ([("A100", (8, 0)), ("H100", (9, 0))], "auto", "float32", "bf16-mixed"),
        ([("A100", (8, 0)), ("T4", (7, 5))], "gpu", "float32", "32-true"),
        ([("A100", (8, 0))], "cpu", "float32", "32-true"),
        ([("A100", (8, 0))], "cuda", "float16", "32-true"),
        ([], "auto", "float32", "32-true"),
    ],
)  # fmt: skip
def test_default_precision(cards: Any, accelerator: str, dtype: str, precision: str, said: list[str], monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    monkeypatch.setattr(trainer_settings, "_cards", lambda: cards)
    trainer = lightning_settings(accelerator)
    trainer_settings.settle_precision(trainer, dtype, None)
    assert trainer.precision == precision
    assert len(said) == (accelerator != "cpu" and bool(cards))
    named = lightning_settings(accelerator, "16-mixed")
    trainer_settings.settle_precision(named, dtype, "bf16-mixed")
    assert named.precision == "16-mixed"
    assert said[-1] == "trainer.precision: 16-mixed from here on, bf16-mixed before: losses differ"


def lightning_settings(accelerator: str, precision: str | None = None) -> Any:
    from jsonargparse import Namespace

    return Namespace(accelerator=accelerator, precision=precision, plugins=None)


def test_precision_in_effect_is_saved_and_goes_on(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch):
    """Begun where a card is seen, with a fused optimizer and clipping, continued where there is none: bf16-mixed stays."""
    data, root = write_labelled(tmp_path / "data"), tmp_path / "run"
    fused = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3, "fused": True}}
    own = {"model__init_args__optimizer": fused, "trainer__accelerator": "auto"}
    monkeypatch.setattr(trainer_settings, "_cards", lambda: [("A100", (8, 0))])
    fit(root, data, False, **own, trainer__max_steps=2)
    assert said == ["precision: bf16-mixed (the default on this GPU; set trainer.precision to change it)"]
    monkeypatch.setattr(trainer_settings, "_cards", list)
    fit(root, data, False, "--ckpt_path", "last", **own, trainer__max_steps=3)
    assert "precision: bf16-mixed (as in the run that this one resumes" in said[-1]
    assert yaml.safe_load((root / "logs" / "config.yaml").read_text())["trainer"]["precision"] == "bf16-mixed"


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["ddp", "fsdp2"])
@pytest.mark.parametrize(("too_large", "chosen"), [(1, "pointwise operations"), (2, "on")])
def test_all_ranks_choose_alike(overlay: str, too_large: int, chosen: str, tmp_path: Path):
    """One of two ranks has too little memory: both recompute, in bfloat16 too, and the losses are those without."""
    data, losses = write_labelled(tmp_path / "data"), []
    for name, rank in (("plain", 7), ("limited", 1)):
        root = tmp_path / name
        callback = {
            "class_path": "tests.stepverify.test_memory.NoMemoryLeft",
            "init_args": {"rank": rank, "too_large": too_large},
        }
        file = config(
            "ProcessRewardModel", root, data, data__pack_tokens=512, trainer__max_epochs=1, data__validation=None,
            trainer__callbacks=[callback], trainer__precision="bf16-mixed",
        )  # fmt: skip
        done = stepverify("fit", "--config", file, "--config", f"lit_configs/overlays/{overlay}.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", "2")  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"gradient checkpointing: {chosen if rank == 1 else 'off'}" in done.stderr
        losses.append(scalars(root)["train/loss"])
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_all_ranks_end_where_one_has_no_memory_left(tmp_path: Path):
    data = write_labelled(tmp_path / "data")
    strike = {"class_path": "tests.stepverify.test_memory.NoMemoryLeft", "init_args": {"rank": 1}}
    file = config("ProcessRewardModel", tmp_path / "run", data, data__pack_tokens=512, trainer__callbacks=[strike])
    done: subprocess.CompletedProcess = stepverify("fit", "--config", file, "--trainer.devices", "2")
    assert done.returncode != 0
    assert "stepverify fit: out of memory in step 3 on cpu" in done.stderr


def test_the_callback_keeps_its_choice():
    callback = ChooseCheckpointing()
    callback.load_state_dict({"choice": {"checkpointing": True, "on": {}}})
    assert callback.state_dict() == {"choice": {"checkpointing": True, "on": {}}}


@pytest.mark.parametrize(("keys", "named"), [({"compile": True}, "compile: true"), ({"attention": "flex"}, "attention: flex")])  # fmt: skip
def test_pointwise_is_refused_where_operators_are_fused(keys: dict[str, Any], named: str):
    with pytest.raises(InputError, match=f"gradient_checkpointing: pointwise does not go with {named}"):
        Backbone(path=BASE, gradient_checkpointing="pointwise", **keys).check()
